//! Snapshots of volumes in use: what was there stays, what comes goes elsewhere, and a crash loses neither.

#[path = "support/plain.rs"]
mod plain;
#[path = "support/served.rs"]
mod served;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plain::Plain;
use served::{Served, block, key};
use tempfile::TempDir;
use vmcell::volume::{Volume, VolumeFormat, VolumeHandle, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 8 << 20;
const LIMIT: Duration = Duration::from_secs(60);

fn read_only(path: &Path) -> Plain {
    let mut config = DiskConfig::new(path);
    config.read_only = true;
    Plain::new(Volume::open_with(VolumeOptions::new(config), &key()).unwrap().into_backend())
}

struct Rig {
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap() };
        Volume::create(rig.path("0"), SIZE, &key()).unwrap();
        // What was never written is noise.
        let mut disk = Plain::new(Volume::open(rig.path("0"), &key()).unwrap().into_backend());
        (0..SIZE >> 20).for_each(|mib| disk.write(mib << 20, &[0; 1 << 20]).unwrap());
        drop(disk);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn data_written_before_stay_in_the_base_and_later_ones_go_to_the_fork() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    for number in 0..5_u8 {
        disk.write(number.into(), 10 + number);
        disk.write(100, number);
        // Not flushed: the snapshot has it all the same.
        disk.handle.snapshot(rig.path(&(number + 1).to_string()), &key(), LIMIT).unwrap();
        // The base is there to be read, while the VM runs.
        assert_eq!(block(&mut read_only(&rig.path(&number.to_string())), 100), number);
        disk.write(100, 99);
    }
    assert_eq!([disk.block(0), disk.block(4), disk.block(5), disk.block(100)], [10, 14, 0, 99]);
    drop(disk);
    for number in 0..5_u8 {
        let mut base = read_only(&rig.path(&number.to_string()));
        assert_eq!((block(&mut base, 100), block(&mut base, number.into())), (number, 10 + number));
        assert_eq!(block(&mut base, u64::from(number) + 1), 0, "that came later");
    }
    let mut last = Plain::new(Volume::open(rig.path("5"), &key()).unwrap().into_backend());
    assert_eq!([block(&mut last, 0), block(&mut last, 4), block(&mut last, 100)], [10, 14, 99]);
}

#[test]
fn a_flush_after_a_snapshot_covers_what_was_written_before_it() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    disk.handle.snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    disk.write(3, 3);
    let prepared = disk.handle.prepare_snapshot(rig.path("2"), &key(), LIMIT).unwrap();
    prepared.take();
    disk.write(4, 4);
    disk.flush();
    // As a loss of power would leave it: what the map in the file does not name is not there.
    for name in ["0", "1", "2"] {
        fs::copy(rig.path(name), rig.path(&format!("copy-{name}"))).unwrap();
    }
    drop((prepared, disk));
    for name in ["0", "1", "2"] {
        fs::rename(rig.path(&format!("copy-{name}")), rig.path(name)).unwrap();
    }
    let mut after = Plain::new(Volume::open(rig.path("2"), &key()).unwrap().into_backend());
    assert_eq!([block(&mut after, 3), block(&mut after, 4)], [3, 4]);
}

#[test]
fn a_disk_under_load_loses_nothing_and_each_snapshot_is_of_one_instant() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    let handle = disk.handle.clone();
    let paths: Vec<_> = (1..8).map(|number| rig.path(&number.to_string())).collect();
    let taker = std::thread::spawn(move || {
        for path in paths {
            handle.snapshot(path, &key(), LIMIT).unwrap();
        }
    });
    // Blocks are written in order, each with the number of its round: so a snapshot has a round, and the one before it behind some block.
    let mut round = 0_u8;
    while !taker.is_finished() || round < 4 {
        round = round.wrapping_add(1).max(1);
        for number in 0..256 {
            disk.write(number, round);
        }
        if round.is_multiple_of(3) {
            disk.flush();
        }
    }
    taker.join().unwrap();
    assert!((0..256).all(|number| disk.block(number) == round));
    drop(disk);
    for number in 0..7 {
        let mut base = read_only(&rig.path(&number.to_string()));
        let found: Vec<u8> = (0..256).map(|number| block(&mut base, number)).collect();
        let (first, last) = (found[0], found[255]);
        let cut = found.iter().position(|byte| *byte != first).unwrap_or(256);
        assert!(found[cut..].iter().all(|byte| *byte == last), "{number}: {found:?}");
        assert!(cut == 256 || first == last.wrapping_add(1).max(1), "{number}: {first} {last}");
    }
    let mut last = Plain::new(Volume::open(rig.path("7"), &key()).unwrap().into_backend());
    assert!((0..256).all(|number| block(&mut last, number) == round));
}

#[test]
fn a_snapshot_that_is_prepared_and_not_taken_changes_nothing() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    for _ in 0..3 {
        let prepared = disk.handle.prepare_snapshot(rig.path("1"), &key(), LIMIT).unwrap();
        let error = disk.handle.prepare_snapshot(rig.path("2"), &key(), LIMIT).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidState && !rig.path("2").exists(), "{error}");
        assert_eq!(prepared.wait(LIMIT).unwrap_err().kind(), ErrorKind::InvalidState);
        disk.write(1, 1);
        drop(prepared);
        assert!(!rig.path("1").exists() && !Volume::inspect(rig.path("0")).unwrap().is_base);
    }
    disk.handle.snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    disk.write(2, 2);
    drop(disk);
    let mut fork = Plain::new(Volume::open(rig.path("1"), &key()).unwrap().into_backend());
    assert_eq!([block(&mut fork, 1), block(&mut fork, 2)], [1, 2]);
}

#[test]
fn data_written_over_a_snapshot_that_was_not_taken_stay_if_its_vm_has_ended() {
    for is_in_use in [false, true] {
        let rig = Rig::new();
        let disk = Served::open(&rig.path("0"));
        let prepared = disk.handle.prepare_snapshot(rig.path("1"), &key(), LIMIT).unwrap();
        drop(disk);
        let fork = Served::open(&rig.path("1"));
        if is_in_use {
            drop(prepared);
            fork.write(1, 1);
            drop(fork);
        } else {
            fork.write(1, 1);
            drop(fork);
            drop(prepared);
        }
        let mut fork = Plain::new(Volume::open(rig.path("1"), &key()).unwrap().into_backend());
        assert_eq!(block(&mut fork, 1), 1, "{is_in_use}");
    }
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    let prepared = disk.handle.prepare_snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    drop(disk);
    Volume::fork(rig.path("0"), &key(), rig.path("other"), &key()).unwrap();
    drop(prepared);
    assert!(!rig.path("1").exists() && Volume::open(rig.path("other"), &key()).is_ok());
}

#[test]
fn a_snapshot_that_is_dropped_once_all_is_stable_lets_the_old_file_be_forked() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    let prepared = disk.handle.prepare_snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    prepared.take();
    prepared.take();
    disk.write(1, 1);
    disk.flush();
    drop(prepared);
    Volume::fork(rig.path("0"), &key(), rig.path("other"), &key()).unwrap();
    assert_eq!(disk.block(1), 1);
}

#[test]
fn volumes_that_cannot_be_snapshotted_are_refused_and_nothing_is_left() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    let refusal = |handle: &VolumeHandle, name: &str| {
        let error = handle.snapshot(rig.path(name), &key(), LIMIT).unwrap_err();
        error.chain()
    };
    fs::write(rig.path("there"), "kept").unwrap();
    assert!(refusal(&disk.handle, "there").contains("cannot be made"));
    assert_eq!(fs::read(rig.path("there")).unwrap(), b"kept");
    assert!(refusal(&disk.handle, "none/there").contains("No such file"));
    for number in 1..=16 {
        disk.handle.snapshot(rig.path(&number.to_string()), &key(), LIMIT).unwrap();
    }
    assert!(refusal(&disk.handle, "17").contains("it lies over more volumes than 16"));
    assert!(!rig.path("17").exists() && !Volume::inspect(rig.path("16")).unwrap().is_base);
    disk.write(1, 1);
    disk.flush();
    fs::rename(rig.path("16"), rig.path("away")).unwrap();
    drop(disk);

    Volume::create(rig.path("other"), SIZE, &key()).unwrap();
    let disk = Served::open(&rig.path("other"));
    fs::rename(rig.path("other"), rig.path("moved")).unwrap();
    Volume::create(rig.path("other"), SIZE, &key()).unwrap();
    assert!(refusal(&disk.handle, "x").contains("it is another file than the one in use"));
    drop(disk);

    let small = VolumeFormat::new().sector_size(512);
    Volume::create_with(rig.path("small"), SIZE, &key(), &small).unwrap();
    assert!(refusal(&Served::open(&rig.path("small")).handle, "x").contains("blocks of 512 bytes"));
    let mut config = DiskConfig::new(rig.path("other"));
    config.read_only = true;
    let disk = Served::on(Volume::open_with(VolumeOptions::new(config), &key()).unwrap());
    assert!(refusal(&disk.handle, "x").contains("it was opened to be read alone"));
    assert!(!rig.path("x").exists());
}

#[test]
fn a_disk_that_nobody_serves_times_out_and_is_as_it_was() {
    let rig = Rig::new();
    let volume = Volume::open(rig.path("0"), &key()).unwrap();
    let error = volume.handle().snapshot(rig.path("1"), &key(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(!rig.path("1").exists() && !Volume::inspect(rig.path("0")).unwrap().is_base);
    let disk = Served::on(volume);
    disk.write(1, 1);
    disk.handle.snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    assert_eq!(disk.block(1), 1);
}

#[test]
fn a_copy_of_both_files_at_any_moment_has_the_volume_in_one_of_them() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("0"));
    disk.write(9, 9);
    disk.flush();
    // Each state that a process that is killed may leave: before the fork is whole, before the base is marked, before the fork is on
    // top, and afterwards.
    let look = |expected: &[u8]| {
        let copy = TempDir::new_in(rig.folder.path()).unwrap();
        for name in ["0", "1"] {
            let _ = fs::copy(rig.path(name), copy.path().join(name));
        }
        let open = |name| Volume::open(copy.path().join(name), &key());
        let volume = open("1").or_else(|_| open("0")).expect("one of the two is there");
        let mut disk = Plain::new(volume.into_backend());
        assert!(expected.contains(&block(&mut disk, 9)));
    };
    look(&[9]);
    // A fork that was not finished.
    fs::write(rig.path("1"), [0; 8192]).unwrap();
    look(&[9]);
    fs::remove_file(rig.path("1")).unwrap();
    let prepared = disk.handle.prepare_snapshot(rig.path("1"), &key(), LIMIT).unwrap();
    look(&[9]);
    disk.write(9, 10);
    disk.flush();
    look(&[10]);
    // One of the two headers of the base was written.
    let file = fs::File::options().read(true).write(true).open(rig.path("0")).unwrap();
    let (mut first, mut second) = (vec![0; 16384], vec![0; 16384]);
    file.read_exact_at(&mut first, 0).unwrap();
    file.read_exact_at(&mut second, 16384).unwrap();
    for (at, kept) in [(0, first), (16384, second)] {
        file.write_all_at(&vec![0; 16384], at).unwrap();
        look(&[10]);
        file.write_all_at(&kept, at).unwrap();
    }
    prepared.take();
    look(&[10]);
    prepared.wait(LIMIT).unwrap();
    disk.write(9, 11);
    disk.flush();
    look(&[11]);
}
