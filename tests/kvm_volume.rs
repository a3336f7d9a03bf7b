//! Encrypted volumes as disks of VMs.

mod support;

use std::fs;
use std::process::Output;
use std::time::Duration;

use support::{Kernel, tiny};
use vmcell::testing::TinyGuest;
use vmcell::volume::{Key, Volume};
use vmcell::{ErrorKind, Exit, Seccomp};

const SIZE: u64 = 1 << 20;

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_vm_on_a_volume_starts_and_ends_under_its_filters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let key = Key::generate().unwrap();
    Volume::create(&path, SIZE, &key).unwrap();
    for seccomp in [Seccomp::Off, Seccomp::Kill] {
        let disk = Volume::open(&path, &key).unwrap().into_disk();
        let handle = disk.handle();
        let vm = tiny(&Kernel::new(&TinyGuest::power_off())).seccomp(seccomp).disk(disk).build().unwrap();
        assert_eq!(Volume::open(&path, &key).unwrap_err().kind(), ErrorKind::Disk, "it is in use");
        Volume::grow(&path, 2 * SIZE).unwrap();
        handle.refresh();
        // Keys change meanwhile.
        let keys = Volume::keys(&path).unwrap();
        keys.remove(keys.add(&key, &Key::generate().unwrap()).unwrap()).unwrap();
        vm.start().unwrap();
        assert!(matches!(vm.wait_timeout(Duration::from_secs(30)).unwrap(), Exit::Shutdown));
        assert!(handle.backend_counters().contains_key("decrypted_bytes"));
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn the_launcher_opens_volumes_by_key_files_and_says_why_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    TinyGuest::print("hello").write_to(path("guest")).unwrap();
    fs::write(path("key"), "a passphrase").unwrap();
    fs::write(path("wrong"), "another").unwrap();
    fs::write(path("plain"), [0; 8192]).unwrap();
    Volume::create(path("volume"), SIZE, &Key::file(path("key")).unwrap()).unwrap();
    let launch = |volumes: &[&str]| {
        let mut launcher = support::launcher();
        launcher.current_dir(folder.path()).args(["--kernel", "guest", "--console", "stdio"]);
        volumes.iter().for_each(|volume| _ = launcher.args(["--volume", volume]));
        let Output { status, stdout, stderr } = launcher.output().expect("the launcher starts");
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    };
    let served = (Some(0), "hello".to_owned(), String::new());
    assert_eq!(launch(&["volume,key-file=key"]), served);
    assert_eq!(launch(&["volume,key-file=key,ro,direct,engine=sync,discard,iops=100"]), served);
    for (volumes, status, said) in [
        (&["volume,key-file=wrong"][..], 1, "volume volume: no key slot is opened by this key"),
        (&["volume,key-file=none"], 1, "key file none: it cannot be read: No such file"),
        (&["none,key-file=key"], 1, "disk none cannot be opened"),
        (&["plain,key-file=key"], 1, "it is no LUKS volume"),
        (&["volume,key-file=key", "volume,key-file=key"], 1, "only one may write to it"),
        (&["volume"], 2, "a volume needs key-file=FILE"),
        (&["volume,key-file="], 2, "a volume needs key-file=FILE"),
    ] {
        let (code, _, text) = launch(volumes);
        assert!(code == Some(status) && text.contains(said), "{volumes:?}: {code:?} {text}");
    }
}
