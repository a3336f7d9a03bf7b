//! Encrypted volumes as disks of VMs.

mod support;

use std::fs;
use std::process::Output;
use std::time::Duration;

use support::{Kernel, tiny};
use vmcell::testing::TinyGuest;
use vmcell::volume::{Key, Volume, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind, Exit, Seccomp};

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
fn a_volume_is_snapshotted_with_its_vm_at_one_instant_under_its_filters() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: u8| folder.path().join(name.to_string());
    let key = Key::generate().unwrap();
    Volume::create(path(0), SIZE, &key).unwrap();
    let limit = Duration::from_secs(60);
    let mut last = 0;
    for seccomp in [Seccomp::Off, Seccomp::Kill] {
        let volume = Volume::open(path(last), &key).unwrap();
        let handle = volume.handle();
        let kernel = Kernel::new(&TinyGuest::spin());
        let vm = tiny(&kernel).seccomp(seccomp).disk(volume.into_disk()).build().unwrap();
        vm.start().unwrap();
        handle.snapshot(path(last + 1), &key, limit).unwrap();
        let prepared = handle.prepare_snapshot(path(last + 2), &key, limit).unwrap();
        let ram = vm
            .snapshot_with(|| {
                prepared.take();
                Ok(())
            })
            .unwrap();
        prepared.wait(limit).unwrap();
        // The file of that instant belongs to the snapshot's forks now, while the VM runs.
        let mut read_only = DiskConfig::new(path(last + 1));
        read_only.read_only = true;
        drop(Volume::open_with(VolumeOptions::new(read_only), &key).unwrap());
        drop(ram);
        vm.pause().unwrap();
        let error = handle.snapshot(path(99), &key, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "a paused VM does not serve its disk");
        vm.resume().unwrap();
        handle.snapshot(path(last + 3), &key, limit).unwrap();
        vm.stop().unwrap();
        drop(vm);
        assert_eq!(handle.snapshot(path(99), &key, limit).unwrap_err().kind(), ErrorKind::Volume, "it has ended");
        last += 3;
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_volume_and_then_a_fork_grow_in_use_under_the_filters_of_their_vm() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = Key::generate().unwrap();
    let limit = Duration::from_secs(60);
    for seccomp in [Seccomp::Off, Seccomp::Kill] {
        let [plain, fork] = ["plain", "fork"].map(|name| path(&format!("{name}-{seccomp:?}")));
        Volume::create(&plain, SIZE, &key).unwrap();
        let volume = Volume::open(&plain, &key).unwrap();
        let handle = volume.handle();
        let kernel = Kernel::new(&TinyGuest::spin());
        let vm = tiny(&kernel).seccomp(seccomp).disk(volume.into_disk()).build().unwrap();
        vm.start().unwrap();
        handle.grow(2 * SIZE, limit).unwrap();
        handle.snapshot(&fork, &key, limit).unwrap();
        // So much that the map in memory is moved.
        handle.grow(200 << 30, limit).unwrap();
        vm.pause().unwrap();
        let error = handle.grow(201 << 30, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "a paused VM does not serve its disk");
        vm.resume().unwrap();
        handle.grow(201 << 30, limit).unwrap();
        vm.stop().unwrap();
        drop(vm);
        assert!(handle.grow(202 << 30, limit).unwrap_err().chain().contains("not in use any more"));
        assert_eq!(Volume::open(&fork, &key).unwrap().capacity(), 201 << 30);
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
