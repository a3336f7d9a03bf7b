//! Forks that become independent of their base, forks that are committed to it, and forks that grow.

#[path = "support/plain.rs"]
mod plain;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use plain::Plain;
use tempfile::TempDir;
use vmcell::volume::{Key, OtherForks, Volume, VolumeOptions, VolumeProgress};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 3 << 20;
const BLOCK: u64 = 4096;

fn key(number: u8) -> Key {
    Key::random(&[number; 32]).unwrap()
}

fn go_on(_: VolumeProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

struct Rig {
    folder: TempDir,
}

impl Rig {
    /// A chain: in the volume 0, each block has its number in each byte, but every fourth is zeroes; the volumes 1 and so on, each over the
    /// one before and opened by the key of its number, have one more block changed and one of zeroes each.
    fn new(forks: u8) -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap() };
        Volume::create(rig.path("0"), SIZE, &key(0)).unwrap();
        let mut disk = rig.open("0", 0);
        let byte = |at: u64| if (at / BLOCK).is_multiple_of(4) { 0 } else { (at / BLOCK) as u8 };
        for at in (0..SIZE).step_by(1 << 20) {
            disk.write(at, &(at..at + (1 << 20)).map(byte).collect::<Vec<_>>()).unwrap();
        }
        drop(disk);
        for number in 1..=forks {
            let (base, name) = ((number - 1).to_string(), number.to_string());
            Volume::fork(rig.path(&base), &key(number - 1), rig.path(&name), &key(number)).unwrap();
            rig.change(&name, number);
        }
        rig
    }

    fn change(&self, name: &str, number: u8) {
        let mut disk = self.open(name, number);
        disk.write(u64::from(number) * BLOCK, &[200 + number; BLOCK as usize]).unwrap();
        disk.zero((100 + u64::from(number)) * BLOCK, BLOCK).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str, of: u8) -> Plain {
        Plain::new(Volume::open(self.path(name), &key(of)).unwrap().into_backend())
    }

    fn all(&self, name: &str, of: u8) -> Vec<u8> {
        let mut disk = self.open(name, of);
        let capacity = disk.info().capacity;
        (0..capacity).step_by(64 << 10).flat_map(|at| disk.read(at, 64 << 10).unwrap()).collect()
    }

    fn refusal(&self, name: &str, of: u8) -> String {
        Volume::open(self.path(name), &key(of)).expect_err("it is refused").chain()
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

#[test]
fn a_flattened_fork_has_all_its_data_without_the_chain() {
    let rig = Rig::new(3);
    let before = rig.all("3", 3);
    let mut last = None;
    let done = Volume::flatten(rig.path("3"), &key(3), |progress| {
        last = Some(progress);
        ControlFlow::Continue(())
    });
    assert!(done.unwrap());
    assert_eq!(last.map(|last| (last.done, last.total)), Some((SIZE, SIZE)));
    for name in ["0", "1", "2"] {
        fs::remove_file(rig.path(name)).unwrap();
    }
    assert!(rig.all("3", 3) == before);
    rig.open("3", 3).write(7 * BLOCK, &[9; BLOCK as usize]).unwrap();
    assert_eq!(rig.all("3", 3)[7 * BLOCK as usize], 9);
    // It may be a base itself, and grow.
    Volume::grow_fork(rig.path("3"), &key(3), 2 * SIZE).unwrap();
    Volume::fork(rig.path("3"), &key(3), rig.path("4"), &key(4)).unwrap();
    let all = rig.all("4", 4);
    assert!(all.len() as u64 == 2 * SIZE && all[SIZE as usize..].iter().all(|byte| *byte == 0));
    let error = Volume::flatten(rig.path("3"), &key(3), go_on).unwrap_err();
    assert!(error.to_string().contains("it builds on no other volume"), "{error}");
}

#[test]
fn a_flatten_that_is_broken_off_or_killed_loses_nothing_and_goes_on() {
    let rig = Rig::new(2);
    let before = rig.all("2", 2);
    for steps in [0, 2] {
        let mut left = steps;
        let done = Volume::flatten(rig.path("2"), &key(2), |_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(!done.unwrap());
        assert!(rig.all("2", 2) == before);
    }
    let mut killed = Vec::new();
    Volume::flatten(rig.path("2"), &key(2), |_| {
        killed.push(rig.copy());
        ControlFlow::Continue(())
    })
    .unwrap();
    for rig in killed {
        assert!(rig.all("2", 2) == before);
        assert!(Volume::flatten(rig.path("2"), &key(2), go_on).unwrap());
        fs::remove_file(rig.path("1")).unwrap();
        assert!(rig.all("2", 2) == before);
    }
}

#[test]
fn zeroes_take_no_space_in_a_flattened_fork() {
    let rig = Rig { folder: tempfile::tempdir().unwrap() };
    Volume::create(rig.path("0"), SIZE, &key(0)).unwrap();
    let mut disk = rig.open("0", 0);
    (0..SIZE >> 20).for_each(|mib| disk.write(mib << 20, &[0; 1 << 20]).unwrap());
    drop(disk);
    Volume::fork(rig.path("0"), &key(0), rig.path("1"), &key(1)).unwrap();
    Volume::flatten(rig.path("1"), &key(1), go_on).unwrap();
    let taken = fs::metadata(rig.path("1")).unwrap().blocks() * 512;
    assert!(taken < 1 << 20, "{taken}");
    assert!(rig.all("1", 1).iter().all(|byte| *byte == 0));
}

#[test]
fn a_chain_is_copied_to_a_volume_of_its_own_that_opens_only_once_it_is_whole() {
    let rig = Rig::new(2);
    let before = rig.all("2", 2);
    let stopped = Volume::flatten_to(rig.path("2"), &key(2), rig.path("new"), &key(9), |progress| {
        assert!(Volume::open(rig.path("new"), &key(9)).is_err());
        if progress.done >= 2 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(!stopped.unwrap() && !rig.path("new").exists());
    assert!(Volume::flatten_to(rig.path("2"), &key(2), rig.path("new"), &key(9), go_on).unwrap());
    assert!(rig.all("new", 9) == before);
    let info = Volume::inspect(rig.path("new")).unwrap();
    assert!(!info.is_fork && !info.is_base && info.capacity == Some(SIZE));
    assert!(Volume::flatten_to(rig.path("2"), &key(2), rig.path("new"), &key(9), go_on).is_err(), "it exists");
    assert!(rig.all("new", 9) == before && rig.all("2", 2) == before);
}

#[test]
fn a_committed_fork_is_its_base() {
    for forks in [1, 3] {
        let rig = Rig::new(forks);
        let (name, below) = (forks.to_string(), (forks - 1).to_string());
        Volume::grow_fork(rig.path(&name), &key(forks), SIZE + (1 << 20)).unwrap();
        rig.open(&name, forks).write(SIZE + BLOCK, &[77; BLOCK as usize]).unwrap();
        let before = rig.all(&name, forks);
        assert!(Volume::commit(rig.path(&name), &key(forks), OtherForks::Refuse, go_on).unwrap());
        assert!(!rig.path(&name).exists());
        assert!(rig.all(&below, forks - 1) == before);
        assert!(!Volume::inspect(rig.path(&below)).unwrap().is_base);
        rig.change(&below, forks - 1);
    }
}

#[test]
fn a_fork_that_is_committed_by_a_link_is_gone_and_the_link_leads_nowhere() {
    let rig = Rig::new(1);
    std::os::unix::fs::symlink(rig.path("1"), rig.path("link")).unwrap();
    assert!(Volume::commit(rig.path("link"), &key(1), OtherForks::Refuse, go_on).unwrap());
    assert!(!rig.path("1").exists() && rig.path("link").is_symlink());
}

#[test]
fn a_commit_that_others_would_suffer_from_is_refused_unless_they_are_given_up() {
    let rig = Rig::new(2);
    Volume::fork(rig.path("0"), &key(0), rig.path("other"), &key(8)).unwrap();
    let commit = |name: &str, of: u8, others| Volume::commit(rig.path(name), &key(of), others, go_on);
    let said = commit("1", 1, OtherForks::GiveUp).unwrap_err().to_string();
    assert!(said.contains("others build on it"), "{said}");
    assert!(commit("2", 2, OtherForks::Refuse).unwrap());
    let said = commit("1", 1, OtherForks::Refuse).unwrap_err().chain();
    assert!(said.contains("2 forks were made over it"), "{said}");
    let other = rig.open("other", 8);
    let error = commit("1", 1, OtherForks::GiveUp).unwrap_err();
    assert!(error.kind() == ErrorKind::Disk && error.chain().contains("in use"), "{}", error.chain());
    drop(other);
    let before = rig.all("1", 1);
    assert!(commit("1", 1, OtherForks::GiveUp).unwrap());
    assert!(rig.all("0", 0) == before);
    assert!(rig.refusal("other", 8).contains("it is another volume"));
    let said = commit("0", 0, OtherForks::GiveUp).unwrap_err().to_string();
    assert!(said.contains("it builds on no other volume"), "{said}");
}

#[test]
fn a_commit_that_is_broken_off_or_killed_leaves_the_fork_whole_and_is_done_again() {
    for forks in [1, 2] {
        let rig = Rig::new(forks);
        let (name, below) = (forks.to_string(), (forks - 1).to_string());
        Volume::fork(rig.path(&below), &key(forks - 1), rig.path("other"), &key(8)).unwrap();
        let before = rig.all(&name, forks);
        let mut killed = Vec::new();
        let done = Volume::commit(rig.path(&name), &key(forks), OtherForks::GiveUp, |progress| {
            killed.push(rig.copy());
            if progress.done >= 2 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(!done.unwrap());
        killed.push(rig);
        for rig in killed {
            assert!(rig.all(&name, forks) == before);
            assert!(rig.refusal("other", 8).contains("another fork of it is being committed"));
            assert!(rig.refusal(&below, forks - 1).contains("a fork is being committed to it"));
            assert!(Volume::release(rig.path(&below)).is_err());
            let copied = Volume::flatten_to(rig.path(&below), &key(forks - 1), rig.path("x"), &key(1), go_on);
            assert!(copied.unwrap_err().to_string().contains("a fork is being committed to it"));
            let again = Volume::fork(rig.path(&below), &key(forks - 1), rig.path("x"), &key(1));
            assert!(again.unwrap_err().to_string().contains("a fork is being committed to it"));
            // The fork may be used before it is committed again.
            rig.change(&name, forks);
            assert!(Volume::commit(rig.path(&name), &key(forks), OtherForks::GiveUp, go_on).unwrap());
            assert!(rig.all(&below, forks - 1) == before);
        }
    }
}

/// A file system of this many bytes that is unmounted with this; `None` if it takes rights that this process has not.
struct Small(TempDir);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let small = tempfile::tempdir().unwrap();
        let is_mounted = host("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], small.path());
        is_mounted.then_some(Self(small))
    }

    fn resize(&self, bytes: u64) {
        assert!(host("mount", &["-o", &format!("remount,size={bytes}")], self.0.path()));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        host("umount", &[], self.0.path());
    }
}

fn host(program: &str, arguments: &[&str], path: &Path) -> bool {
    Command::new(program).args(arguments).arg(path).output().is_ok_and(|output| output.status.success())
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_full_disk_in_the_middle_loses_nothing_and_the_work_goes_on_once_there_is_room() {
    const LARGE: u64 = 64 << 20;
    let Some(small) = Small::mount(SIZE + (5 << 18)) else {
        return eprintln!("skipped: no file system of our own can be mounted here (it takes root and mount)");
    };
    let rig = Rig::new(1);
    let before = rig.all("1", 1);
    Volume::fork(rig.path("1"), &key(1), small.0.path().join("2"), &key(2)).unwrap();
    let is_full = |result: vmcell::Result<bool>| {
        let error = result.unwrap_err();
        assert!(error.chain().contains("No space left on device"), "{}", error.chain());
    };
    let path = small.0.path().join("2");
    let all = |path: &Path, of: u8| {
        let mut disk = Plain::new(Volume::open(path, &key(of)).unwrap().into_backend());
        (0..SIZE).step_by(1 << 18).flat_map(|at| disk.read(at, 1 << 18).unwrap()).collect::<Vec<_>>()
    };
    // The copy of a chain: nothing is left of it. There is no room for a snapshot either, and the volume is as it was.
    fs::write(small.0.path().join("ballast"), vec![1; 5 << 19]).unwrap();
    is_full(Volume::flatten_to(&path, &key(2), small.0.path().join("copy"), &key(3), go_on));
    assert!(!small.0.path().join("copy").exists());
    is_full(Volume::flatten(&path, &key(2), go_on));
    assert!(all(&path, 2) == before);
    is_full(Volume::fork(&path, &key(2), small.0.path().join("3"), &key(3)).map(|()| true));
    assert!(!small.0.path().join("3").exists() && all(&path, 2) == before);
    small.resize(LARGE);
    assert!(Volume::flatten(&path, &key(2), go_on).unwrap());
    assert!(all(&path, 2) == before);

    // A commit to a base for which there is no room.
    Volume::fork(&path, &key(2), rig.path("3"), &key(3)).unwrap();
    let mut disk = rig.open("3", 3);
    (0..SIZE >> 20).for_each(|mib| disk.write(mib << 20, &[3; 1 << 20]).unwrap());
    disk.flush().unwrap();
    drop(disk);
    Volume::grow_fork(rig.path("3"), &key(3), 2 * SIZE).unwrap();
    let mut disk = rig.open("3", 3);
    (SIZE >> 20..SIZE >> 19).for_each(|mib| disk.write(mib << 20, &[4; 1 << 20]).unwrap());
    drop(disk);
    let before = rig.all("3", 3);
    fs::write(small.0.path().join("ballast"), vec![1; (LARGE - 2 * SIZE) as usize]).unwrap();
    is_full(Volume::commit(rig.path("3"), &key(3), OtherForks::Refuse, go_on));
    assert!(rig.all("3", 3) == before);
    fs::remove_file(small.0.path().join("ballast")).unwrap();
    assert!(Volume::commit(rig.path("3"), &key(3), OtherForks::Refuse, go_on).unwrap());
    assert!(all(&path, 2) == before[..SIZE as usize]);
}

#[test]
fn work_on_volumes_in_use_is_refused() {
    let rig = Rig::new(1);
    let disk = rig.open("1", 1);
    let refused = [
        Volume::flatten(rig.path("1"), &key(1), go_on),
        Volume::commit(rig.path("1"), &key(1), OtherForks::Refuse, go_on),
        Volume::grow_fork(rig.path("1"), &key(1), 2 * SIZE).map(|()| true),
        Volume::flatten_to(rig.path("1"), &key(1), rig.path("new"), &key(1), go_on),
    ];
    for error in refused {
        let error = error.unwrap_err();
        assert!(error.kind() == ErrorKind::Disk && error.chain().contains("in use"), "{}", error.chain());
    }
    drop(disk);
    assert_eq!(Volume::flatten(rig.path("1"), &key(2), go_on).unwrap_err().kind(), ErrorKind::VolumeKey);
    // A base that is only read by others is read as well, and not written to.
    let mut config = DiskConfig::new(rig.path("0"));
    config.read_only = true;
    let reader = Volume::open_with(VolumeOptions::new(config), &key(0)).unwrap();
    let error = Volume::commit(rig.path("1"), &key(1), OtherForks::Refuse, go_on).unwrap_err();
    assert!(error.chain().contains("in use"), "{}", error.chain());
    assert!(Volume::flatten(rig.path("1"), &key(1), go_on).unwrap());
    drop(reader);
}

#[test]
fn a_fork_grows_and_what_is_added_is_zeroes() {
    let rig = Rig::new(2);
    let before = rig.all("2", 2);
    for (size, said) in [
        (SIZE - BLOCK, "from the 3145728 that it has"),
        (SIZE + 512, "multiples of 4096"),
        (9 << 40, "up to 8796093022208"),
    ] {
        let error = Volume::grow_fork(rig.path("2"), &key(2), size).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let error = Volume::grow_fork(rig.path("0"), &key(0), 2 * SIZE).unwrap_err();
    assert!(error.chain().contains("in use") || error.chain().contains("builds on no other"), "{}", error.chain());
    Volume::grow_fork(rig.path("2"), &key(2), SIZE).unwrap();
    for size in [SIZE + BLOCK, 3 * SIZE, 100 * SIZE] {
        Volume::grow_fork(rig.path("2"), &key(2), size).unwrap();
        let mut disk = rig.open("2", 2);
        assert_eq!(disk.info().capacity, size);
        assert_eq!(disk.read(size - BLOCK, BLOCK as usize).unwrap(), [0; BLOCK as usize]);
        disk.write(size - BLOCK, &[5; BLOCK as usize]).unwrap();
        drop(disk);
        let mut disk = rig.open("2", 2);
        assert_eq!(disk.read(size - BLOCK, BLOCK as usize).unwrap(), [5; BLOCK as usize]);
        assert!(
            (0..SIZE)
                .step_by(1 << 20)
                .all(|at| disk.read(at, 1 << 20).unwrap()[..] == before[at as usize..][..1 << 20])
        );
    }
}
