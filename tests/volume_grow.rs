//! Volumes that get larger while they are in use, forks above all: old or new after a crash, and whatever was written stays.

#[path = "support/plain.rs"]
mod plain;
#[path = "support/served.rs"]
mod served;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plain::Plain;
use served::{BLOCK, Served, block, key};
use tempfile::TempDir;
use vmcell::volume::{OtherForks, Volume, VolumeFormat, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const BLOCKS: u64 = SIZE / BLOCK;

struct Rig {
    folder: TempDir,
}

impl Rig {
    /// A base of nothing but the byte 1, and a fork.
    fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap() };
        Volume::create(rig.path("base"), SIZE, &key()).unwrap();
        let mut disk = rig.open("base");
        (0..SIZE >> 20).for_each(|mib| disk.write(mib << 20, &[1; 1 << 20]).unwrap());
        drop(disk);
        Volume::fork(rig.path("base"), &key(), rig.path("fork"), &key()).unwrap();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Plain {
        open(&self.path(name))
    }
}

fn open(path: &Path) -> Plain {
    Plain::new(Volume::open(path, &key()).unwrap().into_backend())
}

fn capacity(disk: &Served) -> u64 {
    disk.call(|disk| disk.info().capacity)
}

fn refusal(disk: &Served, size: u64) -> String {
    disk.handle.grow(size, LIMIT).unwrap_err().chain()
}

#[test]
fn a_fork_grows_in_use_and_what_is_added_is_zeroes_until_it_is_written() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    disk.write(3, 3);
    // Within the last page of the map, into the next one, far, and not at all.
    let sizes = [SIZE + BLOCK, 40 << 20, 5 << 30, 5 << 30];
    let len = || std::fs::metadata(rig.path("fork")).unwrap().len();
    let mut before = 0;
    for (round, size) in (10..).zip(sizes) {
        let last = size / BLOCK - 1;
        disk.handle.grow(size, LIMIT).unwrap();
        if round == 13 {
            assert_eq!(len(), before, "to the size that it has");
        }
        before = len();
        assert_eq!(capacity(&disk), size, "when the call returns");
        assert_eq!([disk.block(2), disk.block(3), disk.block(BLOCKS - 1)], [1, 3, 1]);
        if round < 13 {
            assert_eq!([disk.block(last), disk.block(last - 1)], [0, if round == 10 { 1 } else { 0 }]);
        }
        disk.write(last, round);
        disk.write(BLOCKS, round);
        disk.write(5, round);
        if round % 2 == 0 {
            disk.flush();
        }
    }
    drop(disk);
    let mut disk = rig.open("fork");
    assert_eq!(disk.info().capacity, 5 << 30);
    let read =
        [3, 4, 5, BLOCKS, BLOCKS + 1, (40 << 20) / BLOCK - 1, (5 << 30) / BLOCK - 1].map(|at| block(&mut disk, at));
    assert_eq!(read, [3, 1, 13, 13, 0, 11, 13]);
    assert_eq!(Volume::inspect(rig.path("base")).unwrap().capacity, Some(SIZE), "the base stays as it is");
}

#[test]
fn a_fork_that_has_grown_in_use_is_flattened_copied_snapshotted_and_committed_as_a_whole() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    let write = |disk: &Served, byte: u8| (0..3).for_each(|mib| disk.write(mib * 4096, byte));
    disk.handle.grow(40 << 20, LIMIT).unwrap();
    write(&disk, 2);
    // The volume of the snapshot is as large, and grows on.
    disk.handle.snapshot(rig.path("next"), &key(), LIMIT).unwrap();
    assert_eq!(capacity(&disk), 40 << 20);
    disk.handle.grow(80 << 20, LIMIT).unwrap();
    write(&disk, 3);
    disk.write((80 << 20) / BLOCK - 1, 4);
    drop(disk);
    let check = |path: &Path| {
        let mut disk = open(path);
        let expected = [3, 1, 1, 3, 0, 3, 0, 4];
        let places = [0, 1, BLOCKS - 1, 4096, 4097, 8192, (40 << 20) / BLOCK, (80 << 20) / BLOCK - 1];
        assert_eq!((disk.info().capacity, places.map(|at| block(&mut disk, at))), (80 << 20, expected));
    };
    check(&rig.path("next"));
    let go_on = |_| ControlFlow::Continue(());
    assert!(Volume::flatten_to(rig.path("next"), &key(), rig.path("copy"), &key(), go_on).unwrap());
    check(&rig.path("copy"));
    // Into a fork that is smaller, and that into a plain volume that is smaller still; each grows.
    assert!(Volume::commit(rig.path("next"), &key(), OtherForks::Refuse, go_on).unwrap());
    check(&rig.path("fork"));
    assert!(Volume::commit(rig.path("fork"), &key(), OtherForks::Refuse, go_on).unwrap());
    check(&rig.path("base"));
    assert!(!rig.path("next").exists() && !rig.path("fork").exists());
    Volume::fork(rig.path("base"), &key(), rig.path("last"), &key()).unwrap();
    let disk = Served::open(&rig.path("last"));
    disk.handle.grow(81 << 20, LIMIT).unwrap();
    drop(disk);
    assert!(Volume::flatten(rig.path("last"), &key(), go_on).unwrap());
    let disk = Served::open(&rig.path("last"));
    assert_eq!((capacity(&disk), disk.block(4096), disk.block((81 << 20) / BLOCK - 1)), (81 << 20, 3, 0));
    disk.handle.grow(120 << 20, LIMIT).unwrap();
    assert_eq!((disk.block(4096), disk.block((120 << 20) / BLOCK - 1)), (3, 0));
}

#[test]
fn a_volume_that_is_no_fork_grows_in_use_as_well() {
    let rig = Rig::new();
    Volume::create(rig.path("plain"), SIZE, &key()).unwrap();
    let disk = Served::open(&rig.path("plain"));
    for size in [SIZE + BLOCK, 3 * SIZE] {
        disk.handle.grow(size, LIMIT).unwrap();
        assert_eq!(capacity(&disk), size);
        disk.write(size / BLOCK - 1, 9);
    }
    assert!(refusal(&disk, SIZE).contains("from the 12582912 that it has up to 4611686018427387904"));
    drop(disk);
    assert_eq!(block(&mut rig.open("plain"), 3 * BLOCKS - 1), 9);
}

#[test]
fn a_copy_at_any_moment_of_growth_under_load_is_the_old_one_or_the_new_one() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut flushed = 0;
            while !is_over.load(Ordering::SeqCst) {
                flushed += 1;
                (0..40).for_each(|at| disk.write(at * 25, flushed));
                disk.flush();
                flushed %= 200;
            }
        });
        let copier = scope.spawn(|| {
            for _ in 0..30 {
                let copy = TempDir::new_in(rig.folder.path()).unwrap();
                let path = copy.path().join("fork");
                // As the host's storage may have it: what was written last may be missing, but no copy is older than its own beginning.
                fs::copy(rig.path("fork"), &path).unwrap();
                std::os::unix::fs::symlink(rig.path("base"), copy.path().join("base")).unwrap();
                // A page of the map may have been copied while it was written twice; then it is no copy of one moment.
                let Ok(volume) = Volume::open(&path, &key()) else { continue };
                let mut disk = Plain::new(volume.into_backend());
                let size = disk.info().capacity;
                assert!(size >= SIZE && size.is_multiple_of(33 << 20) || size == SIZE, "{size}");
                assert_eq!(block(&mut disk, 1), 1);
                disk.read(size - BLOCK, BLOCK as usize).unwrap();
            }
        });
        for round in 1..20 {
            disk.handle.grow(round * (33 << 20), LIMIT).unwrap();
        }
        copier.join().unwrap();
        is_over.store(true, Ordering::SeqCst);
        writer.join().unwrap();
    });
    assert_eq!(capacity(&disk), 19 * (33 << 20));
    let last = [0, 25, 39 * 25].map(|at| disk.block(at));
    drop(disk);
    let mut disk = rig.open("fork");
    assert_eq!([0, 25, 39 * 25].map(|at| block(&mut disk, at)), last);
}

#[test]
fn a_fork_has_grown_in_use_as_often_as_it_may_and_grows_on_after_it_has_grown_while_it_was_not() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    let size = |times: u64| SIZE + times * (32 << 20);
    for times in 1..=64 {
        disk.handle.grow(size(times), LIMIT).unwrap();
        disk.write(size(times) / BLOCK - 1, times as u8);
    }
    assert!(refusal(&disk, size(65)).contains("it has grown in use 64 times: grow it once while no VM uses it"));
    assert_eq!(capacity(&disk), size(64));
    drop(disk);
    Volume::grow_fork(rig.path("fork"), &key(), size(65)).unwrap();
    let disk = Served::open(&rig.path("fork"));
    disk.handle.grow(size(66), LIMIT).unwrap();
    for times in 1..=64 {
        assert_eq!(disk.block(size(times) / BLOCK - 1), times as u8);
    }
    assert_eq!(disk.block(size(66) / BLOCK - 1), 0);
}

#[test]
fn what_does_not_grow_is_refused_and_is_as_it_was() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    for (size, said) in [
        (SIZE - BLOCK, "from the 4194304 that it has"),
        (0, "a size of 0 bytes was asked for"),
        (SIZE + 512, "multiples of 4096"),
        (9 << 40, "up to 8796093022208"),
        (u64::MAX, "up to 8796093022208"),
    ] {
        assert!(refusal(&disk, size).contains(said), "{size}: {}", refusal(&disk, size));
    }
    // A snapshot is prepared.
    let prepared = disk.handle.prepare_snapshot(rig.path("next"), &key(), LIMIT).unwrap();
    let error = disk.handle.grow(2 * SIZE, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
    assert!(disk.handle.prepare_snapshot(rig.path("other"), &key(), LIMIT).is_err());
    assert_eq!(capacity(&disk), SIZE);
    prepared.take();
    disk.handle.grow(2 * SIZE, LIMIT).unwrap();
    prepared.wait(LIMIT).unwrap();
    assert_eq!(capacity(&disk), 2 * SIZE);
    // Its file is another one.
    fs::rename(rig.path("next"), rig.path("away")).unwrap();
    assert!(refusal(&disk, 3 * SIZE).contains("No such file"));
    fs::copy(rig.path("away"), rig.path("next")).unwrap();
    assert!(refusal(&disk, 3 * SIZE).contains("it is another file than the one in use"));
    assert_eq!(capacity(&disk), 2 * SIZE);
    let handle = disk.handle.clone();
    drop(disk);
    fs::rename(rig.path("away"), rig.path("next")).unwrap();
    assert!(handle.grow(3 * SIZE, LIMIT).unwrap_err().chain().contains("is not in use any more"));

    let mut config = DiskConfig::new(rig.path("next"));
    config.read_only = true;
    let reader = Served::on(Volume::open_with(VolumeOptions::new(config), &key()).unwrap());
    assert!(refusal(&reader, 3 * SIZE).contains("it was opened to be read alone"));
    let apart = VolumeFormat::new().header(rig.path("header"));
    Volume::create_with(rig.path("apart"), SIZE, &key(), &apart).unwrap();
    let options = VolumeOptions::new(DiskConfig::new(rig.path("apart"))).header(rig.path("header"));
    assert!(
        refusal(&Served::on(Volume::open_with(options, &key()).unwrap()), 2 * SIZE).contains("in a file of its own")
    );
    let error = Volume::grow(rig.path("next"), 3 * SIZE).unwrap_err().chain();
    assert!(error.contains("it is a fork, which grows by its key while no VM uses it, or by the handle"), "{error}");
}

#[test]
fn a_disk_that_nobody_serves_has_grown_in_its_file_and_shows_it_once_it_is_served() {
    let rig = Rig::new();
    let volume = Volume::open(rig.path("fork"), &key()).unwrap();
    for size in [40 << 20, 80 << 20] {
        let error = volume.handle().grow(size, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert_eq!(volume.capacity(), SIZE);
    let disk = Served::on(volume);
    assert_eq!((capacity(&disk), disk.block((80 << 20) / BLOCK - 1)), (80 << 20, 0));
    disk.write((80 << 20) / BLOCK - 1, 7);
    drop(disk);
    assert_eq!(block(&mut rig.open("fork"), (80 << 20) / BLOCK - 1), 7);
}

#[test]
fn of_two_that_have_it_grow_at_once_one_is_refused_or_both_are_done_one_after_the_other() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    let done: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|number| {
                let handle = disk.handle.clone();
                scope.spawn(move || match handle.grow(number * (40 << 20), LIMIT) {
                    Ok(()) => true,
                    Err(e) => {
                        let is_known = e.kind() == ErrorKind::InvalidState || e.chain().contains("that it has up to");
                        assert!(is_known, "{}", e.chain());
                        false
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let most = (1..).zip(&done).filter(|(_, done)| **done).map(|(number, _)| number * (40 << 20)).max().unwrap();
    assert_eq!(capacity(&disk), most);
    disk.write(most / BLOCK - 1, 5);
    drop(disk);
    let mut disk = rig.open("fork");
    assert_eq!((disk.info().capacity, block(&mut disk, most / BLOCK - 1), block(&mut disk, 0)), (most, 5, 1));
}

#[test]
fn a_damaged_header_of_a_fork_that_has_grown_is_passed_over_and_two_are_refused() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    disk.handle.grow(40 << 20, LIMIT).unwrap();
    disk.write((40 << 20) / BLOCK - 1, 7);
    drop(disk);
    let offset = Volume::inspect(rig.path("fork")).unwrap().data_offset;
    let file = fs::File::options().read(true).write(true).open(rig.path("fork")).unwrap();
    let mut kept = [0; 4096];
    for copy in [0, 4096] {
        file.read_exact_at(&mut kept, offset + copy).unwrap();
        file.write_all_at(&[0x5a; 4096], offset + copy).unwrap();
        let mut disk = rig.open("fork");
        assert_eq!((disk.info().capacity, block(&mut disk, (40 << 20) / BLOCK - 1)), (40 << 20, 7));
        drop(disk);
        if copy == 0 {
            file.write_all_at(&kept, offset).unwrap();
        }
    }
    file.write_all_at(&[0x5a; 4096], offset).unwrap();
    let error = Volume::open(rig.path("fork"), &key()).unwrap_err().chain();
    assert!(error.contains("it is no layer over another volume"), "{error}");
    file.write_all_at(&kept, offset + 4096).unwrap();
    // A file that was cut has no place for its map.
    file.set_len(file.metadata().unwrap().len() - (1 << 20)).unwrap();
    let error = Volume::open(rig.path("fork"), &key()).unwrap_err().chain();
    assert!(error.contains("it is cut"), "{error}");
}

/// A small file system, which is unmounted afterwards.
struct Small(TempDir);

impl Small {
    fn mount(size: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a thread may still be about to close the file of a disk that was dropped.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_fork_that_cannot_grow_for_want_of_space_is_as_it_was_and_grows_once_there_is_some() {
    let Some(small) = Small::mount(32 << 20) else {
        return eprintln!("skipped: no file system of our own can be mounted here (it takes root and mount)");
    };
    let rig = Rig::new();
    let (path, ballast) = (small.0.path().join("fork"), small.0.path().join("ballast"));
    Volume::fork(rig.path("base"), &key(), &path, &key()).unwrap();
    let disk = Served::open(&path);
    disk.write(3, 3);
    disk.flush();
    let _ = fs::write(&ballast, vec![1; 32 << 20]);
    // Its map would take 64 MiB.
    let said = refusal(&disk, 256 << 30);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!((capacity(&disk), disk.block(3), disk.block(4)), (SIZE, 3, 1));
    fs::remove_file(&ballast).unwrap();
    let said = refusal(&disk, 256 << 30);
    assert!(said.contains("No space left on device"), "{said}");
    disk.handle.grow(1 << 30, LIMIT).unwrap();
    assert_eq!((capacity(&disk), disk.block(3), disk.block((1 << 30) / BLOCK - 1)), (1 << 30, 3, 0));
    drop(disk);
    assert_eq!(open(&path).info().capacity, 1 << 30);
}

#[test]
fn a_base_with_a_length_of_its_own_refuses_the_commit_of_a_fork_that_has_grown_and_stays_whole() {
    let rig = Rig::new();
    let disk = Served::open(&rig.path("fork"));
    disk.handle.grow(2 * SIZE, LIMIT).unwrap();
    drop(disk);
    limit_data(&rig.path("base"), SIZE);
    let error = Volume::commit(rig.path("fork"), &key(), OtherForks::Refuse, |_| ControlFlow::Continue(()));
    let error = error.unwrap_err().chain();
    assert!(error.contains("base") && error.contains("its header limits it to 4194304 bytes"), "{error}");
    assert_eq!(block(&mut rig.open("fork"), 0), 1);
    let mut config = DiskConfig::new(rig.path("base"));
    config.read_only = true;
    Volume::open_with(VolumeOptions::new(config), &key()).expect("no commit has begun");
}

/// Gives the data of a volume a length in both of its headers.
fn limit_data(path: &Path, len: u64) {
    use sha2::{Digest, Sha256};
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    for at in [0, 16384] {
        let mut header = vec![0; 16384];
        file.read_exact_at(&mut header, at).unwrap();
        let end = header[4096..].iter().position(|byte| *byte == 0).unwrap();
        let json = String::from_utf8(header[4096..4096 + end].to_vec()).unwrap();
        let json = json.replace(r#""size":"dynamic""#, &format!(r#""size":"{len}""#));
        header[4096..].fill(0);
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        header[448..512].fill(0);
        let sum = Sha256::digest(&header);
        header[448..480].copy_from_slice(&sum);
        file.write_all_at(&header, at).unwrap();
    }
}
