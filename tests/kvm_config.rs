//! VMs from descriptions that are data.

mod support;

use std::fs;
use std::time::Duration;

use support::{Kernel, Transcript};
use vmcell::testing::TinyGuest;
use vmcell::{ConsoleConfig, Disk, DiskConfig, Exit, MemoryConfig, VmConfig};

const SOON: Duration = Duration::from_secs(30);

fn tiny(kernel: &Kernel) -> VmConfig {
    let mut config = VmConfig::new(kernel.boot());
    config.memory = MemoryConfig::mib(16);
    config
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_description_is_built_again_and_again_and_opens_what_it_names_each_time() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let directory = tempfile::tempdir().unwrap();
    let (image, log) = (directory.path().join("data.img"), directory.path().join("guest.log"));
    let mut config = tiny(&kernel);
    config.disks.push(DiskConfig::new(&image));
    config.console = ConsoleConfig::file(&log);
    assert!(config.build().unwrap_err().to_string().starts_with("disk 0 ("), "the file is not there yet");
    fs::write(&image, vec![0; 4096]).unwrap();
    let before = config.clone();
    for _ in 0..3 {
        let vm = config.build().unwrap();
        assert!(config.build().unwrap_err().to_string().contains("is in use"), "the disk is locked by the first");
        vm.start().unwrap();
        assert!(matches!(vm.wait_timeout(SOON).unwrap(), Exit::Shutdown));
        drop(vm);
        assert_eq!(fs::read_to_string(&log).unwrap(), "hello");
        fs::remove_file(&log).unwrap();
    }
    assert_eq!(config, before);
}

/// The files that the example names lie in a folder of the test's, and its TAP device is left out.
#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_example_boots() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut config = VmConfig::from_json(include_str!("../examples/vm.json")).unwrap();
    let boot = config.boot.as_mut().unwrap();
    (boot.kernel, boot.initrd) = (path("vmlinuz"), Some(path("initrd.img")));
    config.disks.iter_mut().for_each(|disk| disk.path = path(disk.path.to_str().unwrap()));
    config.nics.clear();
    config.console = ConsoleConfig::file(path("guest.log"));
    TinyGuest::print("hello").write_to(path("vmlinuz")).unwrap();
    ["initrd.img", "root.img", "data.img"].iter().for_each(|name| fs::write(path(name), [0; 4096]).unwrap());
    let vm = config.build().unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(SOON).unwrap(), Exit::Shutdown));
    assert_eq!(fs::read_to_string(path("guest.log")).unwrap(), "hello");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_runs_a_description() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    TinyGuest::print("hello").write_to(path("guest")).unwrap();
    fs::write(path("data.img"), [0; 4096]).unwrap();
    let text = r#"{ "boot": { "kernel": "guest" }, "memory": { "mib": 16 }, "disks": [{ "path": "data.img" }] }"#;
    fs::write(path("vm.json"), text).unwrap();
    let launch = |more: &[&str]| {
        let mut launcher = support::launcher();
        launcher.current_dir(directory.path()).args(["--config", "vm.json"]).args(more);
        let output = launcher.output().expect("the launcher starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(launch(&[]), (Some(0), String::new(), String::new()), "no console is described");
    assert_eq!(launch(&["--console", "stdio"]), (Some(0), "hello".into(), String::new()));
    let (status, _, said) = launch(&["--disk", "missing.img"]);
    assert_eq!(
        (status, said.starts_with("launch: disk 1 (missing.img) cannot be opened: ")),
        (Some(1), true),
        "{said}"
    );
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn what_is_no_data_is_given_beside_a_description() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let transcript = Transcript::default();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("data.img");
    fs::write(&image, vec![0; 4096]).unwrap();
    let mut config = tiny(&kernel);
    config.console = ConsoleConfig::file("/nonexistent/log");
    config.disks.push(DiskConfig::new(&image));
    let second = || Disk::from_file(fs::File::open(&image).unwrap()).unwrap();
    let error = config.builder().disk(second()).build().unwrap_err().to_string();
    let expected = format!("disk 1 (from a file) is the same file as disk 0 ({})", image.display());
    assert!(error.starts_with(&expected), "{error}");
    let vm = config.builder().console(transcript.console()).build().unwrap();
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(SOON).unwrap(), Exit::Shutdown));
    assert_eq!(transcript.text(), "hello");
}

/// Of this process, in KiB.
fn locked_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn memory_is_locked_on_a_node_for_as_long_as_the_vm_is_there() {
    let kernel = Kernel::new(&TinyGuest::print("hello"));
    let mut config = tiny(&kernel);
    config.memory = MemoryConfig::mib(16).locked(true).numa_node(0);
    let before = locked_memory();
    let vm = match config.build() {
        Ok(vm) => vm,
        Err(error) => {
            // This process may lock less.
            assert!(error.to_string().contains("16384 KiB of guest memory"), "{error}");
            return;
        }
    };
    vm.start().unwrap();
    assert!(matches!(vm.wait_timeout(SOON).unwrap(), Exit::Shutdown));
    assert_eq!(locked_memory() - before, 16 << 10);
    let maps = fs::read_to_string("/proc/self/numa_maps").unwrap();
    assert!(maps.lines().any(|line| line.contains(" prefer") && line.contains(" N0=")), "{maps}");
    drop(vm);
    assert_eq!(locked_memory(), before);
    config.memory = MemoryConfig::mib(16).numa_node(1023);
    let error = config.build().unwrap_err().to_string();
    assert!(error.starts_with("guest memory of NUMA node 1023 was asked for, allowed by the host are 0"), "{error}");
}
