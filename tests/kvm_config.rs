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
