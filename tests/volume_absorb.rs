//! A snapshot in the middle of a chain goes: the one above it takes in what it has, while a VM reads both.

#[path = "support/plain.rs"]
mod plain;
#[path = "support/served.rs"]
mod served;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use plain::Plain;
use served::{BLOCK, Served, block, key};
use tempfile::TempDir;
use vmcell::volume::{Key, OtherForks, Volume, VolumeOptions, VolumeProgress};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 8 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const BLOCKS: u64 = SIZE / BLOCK;

fn go_on(_: VolumeProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The files `0`, `1` and so on, each over the one before it.
struct Rig {
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap() };
        Volume::create(rig.path(0), SIZE, &key()).unwrap();
        rig
    }

    fn path(&self, number: u8) -> PathBuf {
        self.folder.path().join(number.to_string())
    }

    fn absorb(&self, number: u8) -> vmcell::Result<bool> {
        Volume::absorb(self.path(number), &key(), self.folder.path().join("new"), go_on)
    }

    /// A served disk with a snapshot for each number below `count`; block `b` is written for each number that `b + 1` is a multiple of, and block 7 is
    /// made zeroes for each odd one.
    fn served(&self, count: u8) -> Served {
        let disk = Served::open(&self.path(0));
        for number in 0..count {
            if number > 0 {
                disk.handle.snapshot(self.path(number), &key(), LIMIT).unwrap();
            }
            for at in (0..200).filter(|at| (at + 1) % u64::from(number + 1) == 0) {
                disk.write(at, 10 + number);
            }
            if number % 2 == 1 {
                disk.call(|disk| disk.zero(7 * BLOCK, BLOCK).unwrap());
            }
        }
        disk
    }

    /// What a process that is killed at this moment leaves.
    fn copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self { folder }
    }
}

fn read_only(path: &Path) -> Plain {
    let mut config = DiskConfig::new(path);
    config.read_only = true;
    let volume = Volume::open_with(VolumeOptions::new(config), &key());
    Plain::new(volume.unwrap_or_else(|e| panic!("{}", e.chain())).into_backend())
}

/// The first blocks, which were written.
fn some(disk: &mut Plain) -> Vec<u8> {
    (0..200).map(|number| block(disk, number)).collect()
}

fn of_served(disk: &Served) -> Vec<u8> {
    disk.call(some)
}

fn taken(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn the_middle_of_a_chain_goes_while_a_vm_runs_and_all_others_read_as_before() {
    let rig = Rig::new();
    let disk = rig.served(5);
    let before: Vec<Vec<u8>> = (0..4).map(|number| some(&mut read_only(&rig.path(number)))).collect();
    let live = of_served(&disk);
    assert_eq!(Volume::base(rig.path(4), &key()).unwrap(), Some(rig.path(3).canonicalize().unwrap()));
    // A fork of another one, which goes on with its base.
    Volume::fork(rig.path(2), &key(), rig.path(100), &key()).unwrap();
    for (above, gone) in [(2, 1), (3, 0), (3, 2)] {
        if gone == 0 {
            // First the one between.
            assert!(rig.absorb(2).unwrap());
            assert_eq!(Volume::base(rig.path(2), &key()).unwrap(), None);
        } else {
            assert!(rig.absorb(above).unwrap());
        }
        assert!(!rig.folder.path().join("new").exists());
        assert_eq!(of_served(&disk), live, "the files that were there are in use still");
        disk.handle.reopen(LIMIT).unwrap();
        fs::rename(rig.path(gone), rig.path(200 + gone)).unwrap();
        assert_eq!(of_served(&disk), live, "{gone}");
        for number in (0..4).filter(|number| rig.path(*number).exists()) {
            assert_eq!(some(&mut read_only(&rig.path(number))), before[usize::from(number)], "{number} without {gone}");
        }
        if gone == 2 {
            fs::rename(rig.path(202), rig.path(2)).unwrap();
        }
    }
    assert_eq!(some(&mut read_only(&rig.path(100))), before[2]);
    disk.write(150, 99);
    disk.handle.snapshot(rig.path(5), &key(), LIMIT).unwrap();
    assert_eq!(disk.block(150), 99);
    drop(disk);
    let mut after = Plain::new(Volume::open(rig.path(5), &key()).unwrap().into_backend());
    assert!((0..200).all(|number| block(&mut after, number) == if number == 150 { 99 } else { live[number as usize] }));
    assert_eq!(Volume::base(rig.path(3), &key()).unwrap(), None);
}

#[test]
fn a_chain_is_kept_short_for_ever_while_it_is_written_to() {
    let rig = Rig::new();
    let disk = rig.served(1);
    for number in 1..40_u8 {
        disk.handle.snapshot(rig.path(number), &key(), LIMIT).unwrap();
        disk.write(u64::from(number), 100 + number);
        if number > 3 {
            assert!(rig.absorb(number - 2).unwrap());
            disk.handle.reopen(LIMIT).unwrap();
            fs::remove_file(rig.path(number - 3)).unwrap();
        }
    }
    // The first one as well, which was made before.
    assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 4);
    let expected: Vec<u8> = (0..200).map(|at| if (1..40).contains(&at) { 100 + at as u8 } else { 10 }).collect();
    assert_eq!(of_served(&disk), expected);
    drop(disk);
    assert_eq!(some(&mut read_only(&rig.path(39))), expected);
}

#[test]
fn a_disk_under_load_reads_the_right_data_while_its_chain_is_opened_anew() {
    let rig = Rig::new();
    let disk = rig.served(4);
    let live = of_served(&disk);
    assert!(rig.absorb(1).unwrap());
    let handle = disk.handle.clone();
    let opener = std::thread::spawn(move || (0..30).for_each(|_| handle.reopen(LIMIT).unwrap()));
    let mut rounds = 0_u8;
    while !opener.is_finished() || rounds < 3 {
        rounds = rounds.wrapping_add(1);
        disk.write(1000, rounds);
        assert_eq!(of_served(&disk), live);
        assert_eq!(disk.block(1000), rounds);
    }
    opener.join().unwrap();
}

#[test]
fn one_that_is_broken_off_or_killed_has_changed_nothing() {
    let rig = Rig::new();
    drop(rig.served(4));
    let before: Vec<Vec<u8>> = (0..4).map(|number| some(&mut read_only(&rig.path(number)))).collect();
    let mut killed = Vec::new();
    let stopped = Volume::absorb(rig.path(2), &key(), rig.folder.path().join("new"), |progress| {
        killed.push(rig.copy());
        if progress.done > 4 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(!stopped.unwrap() && !rig.folder.path().join("new").exists() && killed.len() > 3);
    killed.push(rig);
    for rig in killed {
        let left = rig.folder.path().join("new");
        let check = || {
            (0..4_u8)
                .for_each(|number| assert_eq!(some(&mut read_only(&rig.path(number))), before[usize::from(number)]))
        };
        check();
        if left.exists() {
            assert!(rig.absorb(2).unwrap_err().chain().contains("cannot be made"));
            fs::remove_file(left).unwrap();
        }
        assert!(rig.absorb(2).unwrap());
        check();
    }
}

#[test]
fn it_takes_the_space_of_what_was_written_and_grows_and_is_committed_as_others_are() {
    let rig = Rig::new();
    let disk = rig.served(3);
    disk.handle.grow(2 * SIZE, LIMIT).unwrap();
    disk.write(BLOCKS + 5, 55);
    disk.handle.snapshot(rig.path(3), &key(), LIMIT).unwrap();
    drop(disk);
    assert!(rig.absorb(1).unwrap());
    assert!(taken(&rig.path(1)) < 4 << 20, "{}", taken(&rig.path(1)));
    assert!(rig.absorb(2).unwrap());
    (0..2).for_each(|number| fs::remove_file(rig.path(number)).unwrap());
    let mut above = read_only(&rig.path(3));
    assert_eq!([block(&mut above, BLOCKS + 5), block(&mut above, BLOCKS + 6), block(&mut above, 2)], [55, 0, 12]);
    drop(above);
    assert!(Volume::commit(rig.path(3), &key(), OtherForks::Refuse, go_on).unwrap());
    let mut last = Plain::new(Volume::open(rig.path(2), &key()).unwrap().into_backend());
    assert_eq!([block(&mut last, BLOCKS + 5), block(&mut last, 0)], [55, 10]);
}

#[test]
fn the_base_of_the_base_knows_its_new_fork() {
    let rig = Rig::new();
    drop(rig.served(4));
    assert!(rig.absorb(2).unwrap());
    // 1 is a fork of 0 still, and would ruin 2 if it were committed.
    fs::remove_file(rig.path(3)).unwrap();
    Volume::release(rig.path(1)).unwrap();
    let said = Volume::commit(rig.path(1), &key(), OtherForks::Refuse, go_on).unwrap_err().chain();
    assert!(said.contains("2 forks were made over it"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let rig = Rig::new();
    let disk = rig.served(2);
    let said = |result: vmcell::Result<bool>| result.unwrap_err().chain();
    assert!(said(rig.absorb(0)).contains("it builds on no other volume"));
    let in_use = rig.absorb(1).unwrap_err();
    assert!(in_use.kind() == ErrorKind::Disk && in_use.chain().contains("in use"), "{}", in_use.chain());
    let plain = Rig::new();
    let alone = Served::open(&plain.path(0));
    assert!(alone.handle.reopen(LIMIT).unwrap_err().chain().contains("it builds on no other volume"));
    drop((disk, alone));
    let before = some(&mut read_only(&rig.path(1)));
    assert!(rig.absorb(1).unwrap(), "nobody uses it");
    assert_eq!(some(&mut read_only(&rig.path(1))), before);
    assert!(said(rig.absorb(1)).contains("it builds on no other volume"));
    let rig = Rig::new();
    drop(rig.served(2));
    Volume::fork(rig.path(1), &key(), rig.path(2), &key()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Volume::absorb(rig.path(1), &key(), elsewhere.path().join("new"), go_on);
    assert!(said(other).contains("which is in another folder"));
    let wrong = Key::random(&[8; 32]).unwrap();
    let refused = Volume::absorb(rig.path(1), &wrong, rig.folder.path().join("new"), go_on).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::VolumeKey);
    assert_eq!(Volume::base(rig.path(1), &wrong).unwrap_err().kind(), ErrorKind::VolumeKey);
    // Keys of a file that is there no longer are not changed in vain.
    let keys = Volume::keys(rig.path(1)).unwrap();
    assert!(rig.absorb(1).unwrap());
    assert!(keys.add(&key(), &wrong).unwrap_err().chain().contains("another file took its place"));
    Volume::keys(rig.path(1)).unwrap().add(&key(), &wrong).unwrap();
}

/// Where the child finds the chain.
const FULL: &str = "VMCELL_TEST_ABSORB_FULL";

#[test]
fn on_a_full_disk_it_is_refused_and_the_chain_is_as_it_was_and_it_works_once_there_is_room() {
    if let Some(folder) = std::env::var_os(FULL) {
        let new = Path::new(&folder).join("new");
        let refused = Volume::absorb(Path::new(&folder).join("2"), &key(), &new, go_on).unwrap_err();
        assert!(refused.chain().contains("File too large") && !new.exists(), "{}", refused.chain());
        return;
    }
    let rig = Rig::new();
    drop(rig.served(4));
    let read = || (0..4).map(|number| some(&mut read_only(&rig.path(number)))).collect::<Vec<_>>();
    let before = read();
    let bytes = fs::read(rig.path(2)).unwrap();
    let least = fs::metadata(rig.path(2)).unwrap().len();
    // A file may have so many blocks of 512 bytes: none, a header's, and most of what it takes.
    for blocks in [0, 8, 2048, least / 512 - 8] {
        let name = "on_a_full_disk_it_is_refused_and_the_chain_is_as_it_was_and_it_works_once_there_is_room";
        let mut child = Command::new("sh");
        let limited = "trap '' XFSZ; ulimit -f \"$1\"; exec \"$0\" --exact \"$2\"";
        child.args(["-c", limited]).arg(std::env::current_exe().unwrap()).args([&blocks.to_string(), name]);
        let output = child.env(FULL, rig.folder.path()).output().unwrap();
        assert!(output.status.success(), "{blocks}: {output:?}");
        assert!(fs::read(rig.path(2)).unwrap() == bytes && read() == before, "{blocks}");
        assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 4, "{blocks}");
    }
    assert!(rig.absorb(2).unwrap());
    assert_eq!(read(), before);
}

/// A file system of 16 MiB that is unmounted with this; `None` if it takes rights that this process has not.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "small"]).arg(at).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(at.into()))
    }

    /// Leaves room for so many bytes.
    fn fill(&self, left: u64) {
        let ballast = self.0.join("ballast");
        let full = fs::write(&ballast, vec![1; 16 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let file = fs::File::options().write(true).open(ballast).unwrap();
        file.set_len(file.metadata().unwrap().len() - left).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a thread may still be about to close the file of a disk that was dropped.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn while_a_vm_runs_on_a_file_system_that_fills_at_any_moment_nothing_is_lost_and_it_works_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(folder.path()) else {
        return eprintln!("skipped: no file system of our own can be mounted here (it takes root and mount)");
    };
    Volume::create(folder.path().join("0"), SIZE, &key()).unwrap();
    let rig = Rig { folder };
    let disk = rig.served(4);
    disk.flush();
    let read = || (0..3).map(|number| some(&mut read_only(&rig.path(number)))).collect::<Vec<_>>();
    let (before, live) = (read(), of_served(&disk));
    let bytes = fs::read(rig.path(2)).unwrap();
    let (mut left, mut refused) = (0, 0);
    let taken_in = loop {
        small.fill(left);
        let Err(error) = rig.absorb(2) else { break fs::read(rig.path(2)).unwrap() };
        assert!(error.kind() == ErrorKind::Volume && error.chain().contains("No space left"), "{}", error.chain());
        assert!(error.chain().contains(rig.path(2).to_str().unwrap()), "{}", error.chain());
        assert!(!rig.folder.path().join("new").exists() && fs::read(rig.path(2)).unwrap() == bytes, "{left}");
        assert!(read() == before && of_served(&disk) == live, "{left}");
        (left, refused) = (left + (52 << 10), refused + 1);
    };
    // At the beginning, in the midst of the data, and at the end.
    assert!(refused > 10 && taken_in != bytes, "{refused}");
    disk.handle.reopen(LIMIT).unwrap();
    fs::remove_file(rig.path(1)).unwrap();
    let kept = |number: u8| some(&mut read_only(&rig.path(number))) == before[usize::from(number)];
    assert!(kept(0) && kept(2) && of_served(&disk) == live);
    disk.write(150, 99);
    disk.flush();
    assert_eq!(disk.block(150), 99);
}
