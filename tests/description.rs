//! Descriptions of VMs in files, as the launcher reads and writes them. No KVM needed.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use vmcell::{
    Boot, ConsoleConfig, ConsoleFile, DiskConfig, Limits, MemoryConfig, NicConfig, RateLimit, Seccomp, VmConfig,
};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn launch(arguments: &[&str]) -> Output {
    support::launcher().args(arguments).output().expect("the launcher starts")
}

fn printed(arguments: &[&str]) -> VmConfig {
    let output = launch(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    VmConfig::from_json(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

#[test]
fn the_example_says_the_same_as_in_rust() {
    let text = std::fs::read_to_string(repository("examples/vm.json")).unwrap();
    let boot = Boot::linux("vmlinuz").initrd("initrd.img").cmdline("console=ttyS0 root=/dev/vda ro");
    let mut config = VmConfig::new(boot);
    config.name = "web-1".into();
    config.vcpus = 2;
    config.memory = MemoryConfig::mib(256);
    config.disks = vec![DiskConfig::new("root.img").read_only(true), DiskConfig::new("data.img").serial("data")];
    config.nics = vec![NicConfig::tap("tap0").mac([0x02, 0, 0, 0, 0, 0x10])];
    config.console = ConsoleConfig::file("guest.log");
    assert_eq!(VmConfig::from_json(&text).unwrap(), config);
    config.validate().unwrap();
    let manual = std::fs::read_to_string(repository("docs/description.md")).unwrap();
    assert!(manual.contains(&format!("```json\n{text}```")), "the manual shows the example as it is");
}

#[test]
fn a_printed_command_line_describes_the_same_vm() {
    let arguments = [
        ["--kernel", "vmlinuz"],
        ["--initrd", "initrd.img"],
        ["--cmdline", "-quiet \"x\""],
        ["--vcpus", "3"],
        ["--memory", "64"],
        ["--pages", "2mib"],
        ["--disk", "a.img,ro,engine=sync,iops=2000:100,bandwidth=8388608"],
        ["--disk", "b.img,direct"],
        ["--tap", "tap0,mac=02:00:00:00:00:0a,rx-frames=3,rx-bandwidth=4:5,tx-frames=6:7,tx-bandwidth=8"],
        ["--discovery", "cmdline"],
        ["--protocol", "pvh"],
        ["--poll-us", "0"],
        ["--console-rate", "65536:1048576"],
        ["--log", "vm.log,append,max=65536,keep=2"],
        ["--numa-node", "3"],
        ["--lock-memory", "--core-scheduling"],
        ["--seccomp", "kill"],
    ];
    let config = printed(&[arguments.as_flattened(), &["--print-config"]].concat());
    assert_eq!((config.memory.numa_node, config.memory.locked, config.core_scheduling), (Some(3), true, true));
    assert_eq!(config.seccomp, Seccomp::Kill);
    let boot = config.boot.clone().unwrap();
    assert_eq!((boot.cmdline.as_str(), config.memory.mib, config.disks.len()), ("-quiet \"x\"", 64, 2));
    let rate = |per_second, burst| RateLimit::per_second(per_second).burst(burst);
    assert_eq!(config.disks[0].limits, Limits::new().operations(rate(2000, 100)).bytes(rate(8 << 20, 8 << 20)));
    assert_eq!(config.nics[0].receive_limits, Limits::new().operations(rate(3, 3)).bytes(rate(4, 5)));
    assert_eq!(config.nics[0].send_limits, Limits::new().operations(rate(6, 7)).bytes(rate(8, 8)));
    assert_eq!(config.console_rate, Some(rate(65536, 1 << 20)));
    let log = ConsoleConfig::File(ConsoleFile::new("vm.log").append(true).rotate(65536, 2));
    assert_eq!(
        (config.console.clone(), config.poll_us),
        (ConsoleConfig::All(vec![ConsoleConfig::Stdio, log]), Some(0))
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, config.to_json().unwrap()).unwrap();
    assert_eq!(printed(&["--config", file.path().to_str().unwrap(), "--print-config"]), config);
}

#[test]
fn what_stands_beside_a_file_replaces_its_settings_and_adds_devices() {
    let file = repository("examples/vm.json");
    let beside = ["--kernel", "bzImage", "--vcpus", "4", "--console", "none", "--disk", "more.img,ro", "--tap", "tap1"];
    let config = printed(&[&["--config", file.to_str().unwrap(), "--print-config"], &beside[..]].concat());
    let mut expected = VmConfig::from_json(&std::fs::read_to_string(&file).unwrap()).unwrap();
    expected.boot.as_mut().unwrap().kernel = "bzImage".into();
    expected.vcpus = 4;
    expected.console = ConsoleConfig::None;
    expected.disks.push(DiskConfig::new("more.img").read_only(true));
    expected.nics.push(NicConfig::tap("tap1"));
    assert_eq!(config, expected);
}

#[test]
fn files_that_describe_no_vm_are_refused_with_status_2_by_name_and_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    let name = path.to_str().unwrap();
    for (text, expected) in [
        (r#"{"boot": {"kernel": "k"}, "disks": [{"path": "a", "ro": 1}]}"#, "vm.json: disks[0].ro: unknown field `ro`"),
        (r#"{"boot": {"kernel": "k"}, "vcpus": 65}"#, "65 vCPUs were asked for, allowed are 1 to 64"),
        (r#"{"boot": {"kernel": "k"}, "nics": [{"tap": "t", "mtu": 1}]}"#, "nic 0 (t): an MTU of 1 bytes"),
        ("{}", "no kernel was given"),
        ("", "vm.json: the description of a VM: EOF"),
    ] {
        std::fs::write(&path, text).unwrap();
        for more in [&[][..], &["--print-config"]] {
            let output = launch(&[&["--config", name], more].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{text}: {said}");
            assert!(said.contains(expected), "{text}: {said}");
            assert!(output.stdout.is_empty());
        }
    }
    std::fs::remove_file(&path).unwrap();
    let output = launch(&["--config", name]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains(name) && said.contains("No such file"), "{said}");
}

#[test]
fn a_file_that_is_too_long_or_never_ends_is_refused_with_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    let name = path.to_str().unwrap();
    let text = r#"{"boot": {"kernel": "k"}}"#;
    let padded = |len: usize| text.to_owned() + &" ".repeat(len - text.len());
    std::fs::write(&path, padded(1 << 20)).unwrap();
    assert_eq!(printed(&["--config", name, "--print-config"]), VmConfig::new(Boot::linux("k")));
    std::fs::write(&path, padded((1 << 20) + 1)).unwrap();
    for endless in [name, "/dev/zero"] {
        // So that a launcher that reads on runs out of memory rather than out of the host's.
        let mut launcher = std::process::Command::new("prlimit");
        launcher.args(["--as=1073741824", "--"]).arg(support::launcher().get_program());
        let output = launcher.args(["--config", endless]).output().expect("the launcher starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected = format!("launch: {endless} is longer than 1048576 bytes, the most for a description\n");
        assert_eq!((output.status.code(), &*said), (Some(2), &*expected));
    }
    std::fs::write(&path, b"{ \xff").unwrap();
    let output = launch(&["--config", name]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("vm.json is not UTF-8 from byte 2 on"), "{said}");
}
