//! Volumes over volumes: each sees its own changes, the base never changes, and what does not fit is refused by its name.

#[path = "support/plain.rs"]
mod plain;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use plain::Plain;
use tempfile::TempDir;
use vmcell::volume::{Key, Volume, VolumeFormat, VolumeOptions};
use vmcell::{DiskConfig, ErrorKind};

const SIZE: u64 = 8 << 20;
const BLOCK: u64 = 4096;

fn key(number: u8) -> Key {
    Key::random(&[number; 32]).unwrap()
}

struct Rig {
    folder: TempDir,
}

impl Rig {
    /// A volume "base", opened by `key(0)`, whose blocks have their numbers in each byte.
    fn new() -> Self {
        let rig = Self { folder: tempfile::tempdir().unwrap() };
        Volume::create(rig.path("base"), SIZE, &key(0)).unwrap();
        let mut disk = rig.open("base", 0);
        for at in (0..SIZE).step_by(1 << 20) {
            let bytes: Vec<u8> = (at..at + (1 << 20)).map(|at| (at / BLOCK) as u8).collect();
            disk.write(at, &bytes).unwrap();
        }
        disk.flush().unwrap();
        drop(disk);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fork(&self, base: &str, base_key: u8, name: &str, of: u8) {
        Volume::fork(self.path(base), &key(base_key), self.path(name), &key(of)).unwrap();
    }

    fn open(&self, name: &str, of: u8) -> Plain {
        Plain::new(Volume::open(self.path(name), &key(of)).unwrap().into_backend())
    }

    fn refusal(&self, name: &str, of: u8) -> String {
        Volume::open(self.path(name), &key(of)).expect_err("it is refused").chain()
    }

    fn taken(&self, name: &str) -> u64 {
        fs::metadata(self.path(name)).unwrap().blocks() * 512
    }
}

fn block(disk: &mut Plain, number: u64) -> u8 {
    let bytes = disk.read(number * BLOCK, BLOCK as usize).unwrap();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {number} is torn");
    bytes[0]
}

#[test]
fn forks_see_their_own_changes_and_the_bases_data() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    rig.fork("base", 0, "other", 2);
    for (name, of) in [("one", 1_u8), ("other", 2)] {
        let mut disk = rig.open(name, of);
        assert_eq!(disk.info().capacity, SIZE);
        assert_eq!([block(&mut disk, 5), block(&mut disk, 2047)], [5, 255]);
        disk.write(5 * BLOCK, &[100 + of; 2 * BLOCK as usize]).unwrap();
        disk.zero(100 * BLOCK, 40 * BLOCK).unwrap();
        disk.flush().unwrap();
    }
    for (name, of) in [("one", 1_u8), ("other", 2)] {
        let mut disk = rig.open(name, of);
        let found = [4, 5, 6, 7, 99, 100, 139, 140].map(|number| block(&mut disk, number));
        assert_eq!(found, [4, 100 + of, 100 + of, 7, 99, 0, 0, 140], "{name}");
        assert!(rig.taken(name) < 1 << 20, "{} bytes are taken", rig.taken(name));
    }
    let info = |name| Volume::inspect(rig.path(name)).unwrap();
    assert_eq!([info("base").is_base, info("base").is_fork], [true, false]);
    assert_eq!([info("one").is_base, info("one").is_fork], [false, true]);
}

#[test]
fn a_chain_is_opened_by_the_key_of_its_last_volume_alone() {
    let rig = Rig::new();
    rig.fork("base", 0, "v1", 1);
    for number in 1..6 {
        let mut disk = rig.open(&format!("v{number}"), number);
        disk.write(u64::from(number) * BLOCK, &[200 + number; BLOCK as usize]).unwrap();
        disk.flush().unwrap();
        drop(disk);
        rig.fork(&format!("v{number}"), number, &format!("v{}", number + 1), number + 1);
    }
    let mut disk = rig.open("v6", 6);
    let found: Vec<u8> = (0..8).map(|number| block(&mut disk, number)).collect();
    assert_eq!(found, [0, 201, 202, 203, 204, 205, 6, 7]);
    drop(disk);
    assert_eq!(
        Volume::open(rig.path("v6"), &key(0)).unwrap_err().kind(),
        ErrorKind::VolumeKey,
        "the base's key is not its own"
    );
}

#[test]
fn a_header_from_before_the_fork_keeps_its_base_a_base() {
    let rig = Rig::new();
    let backup = rig.path("backup");
    Volume::keys(rig.path("base")).unwrap().back_up(&backup).unwrap();
    rig.fork("base", 0, "one", 1);
    Volume::restore_header(rig.path("base"), &backup).unwrap();
    assert!(rig.refusal("base", 0).contains("others build on it"));
    assert_eq!(block(&mut rig.open("one", 1), 3), 3);
}

#[test]
fn what_was_completed_is_there_when_the_disk_is_opened_again() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    rig.open("one", 1).write(0, &[7; BLOCK as usize]).unwrap();
    assert_eq!(block(&mut rig.open("one", 1), 0), 7);
}

#[test]
fn too_long_a_chain_is_refused() {
    let rig = Rig::new();
    fs::rename(rig.path("base"), rig.path("0")).unwrap();
    for number in 0..16_u8 {
        rig.fork(&number.to_string(), number, &(number + 1).to_string(), number + 1);
        drop(rig.open(&(number + 1).to_string(), number + 1));
    }
    let error = Volume::fork(rig.path("16"), &key(16), rig.path("17"), &key(17)).unwrap_err();
    assert!(error.to_string().contains("more volumes than 16"), "{error}");
    assert!(!rig.path("17").exists());
    rig.open("16", 16).write(0, &[1; BLOCK as usize]).unwrap();
}

#[test]
fn a_base_may_only_be_read() {
    let rig = Rig::new();
    let disk = rig.open("base", 0);
    let error = Volume::fork(rig.path("base"), &key(0), rig.path("one"), &key(1)).unwrap_err();
    assert!(error.kind() == ErrorKind::Disk && error.to_string().contains("in use for writing"), "{error}");
    drop(disk);
    rig.fork("base", 0, "one", 1);
    assert!(rig.refusal("base", 0).contains("others build on it, so it may only be read"));
    let mut read_only = DiskConfig::new(rig.path("base"));
    read_only.read_only = true;
    let mut disk = Plain::new(Volume::open_with(VolumeOptions::new(read_only), &key(0)).unwrap().into_backend());
    assert_eq!(block(&mut disk, 9), 9);
    // It is read by several at once.
    drop((rig.open("one", 1), disk));
    assert!(
        Volume::grow(rig.path("one"), 2 * SIZE)
            .unwrap_err()
            .to_string()
            .contains("it is a fork, which grows by its key")
    );
}

#[test]
fn a_base_that_is_missing_or_another_one_is_named() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    fs::rename(rig.path("base"), rig.path("away")).unwrap();
    let said = rig.refusal("one", 1);
    assert!(said.contains("/base") && said.contains("No such file"), "{said}");
    Volume::create(rig.path("base"), SIZE, &key(0)).unwrap();
    let said = rig.refusal("one", 1);
    assert!(said.contains("/base: it is another volume than the one that the layer was made over"), "{said}");
    fs::remove_file(rig.path("base")).unwrap();
    fs::rename(rig.path("away"), rig.path("base")).unwrap();
    // It was cut.
    File::options().write(true).open(rig.path("base")).unwrap().set_len((16 << 20) + SIZE - BLOCK).unwrap();
    let said = rig.refusal("one", 1);
    assert!(said.contains("it has 8384512 bytes, and had 8388608"), "{said}");
}

#[test]
fn both_move_together_and_a_base_elsewhere_stays_where_it_is() {
    let rig = Rig::new();
    let inner = rig.path("inner");
    fs::create_dir(&inner).unwrap();
    Volume::fork(rig.path("base"), &key(0), inner.join("elsewhere"), &key(1)).unwrap();
    rig.fork("base", 0, "beside", 1);
    let open = |path: &Path| Volume::open(path, &key(1)).map(drop);
    open(&inner.join("elsewhere")).unwrap();
    let other = tempfile::tempdir().unwrap();
    for name in ["base", "beside"] {
        fs::copy(rig.path(name), other.path().join(name)).unwrap();
        fs::remove_file(rig.path(name)).unwrap();
    }
    open(&other.path().join("beside")).unwrap();
    assert!(open(&inner.join("elsewhere")).unwrap_err().chain().contains("No such file"));
}

#[test]
fn a_fork_is_opened_by_a_link_and_not_if_it_is_cut() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("link");
    std::os::unix::fs::symlink(rig.path("one"), &link).unwrap();
    let volume = Volume::open(&link, &key(1)).unwrap();
    assert_eq!((volume.capacity(), volume.info().capacity), (SIZE, Some(SIZE)));
    drop(volume);
    assert_eq!(Volume::inspect(&link).unwrap().capacity, None);
    let file = File::options().write(true).open(&link).unwrap();
    file.set_len(fs::metadata(&link).unwrap().len() - 4096).unwrap();
    assert!(rig.refusal("one", 1).contains("it is cut: its file has"), "{}", rig.refusal("one", 1));
}

#[test]
fn damage_of_a_layer_is_told() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    let file = File::options().write(true).open(rig.path("one")).unwrap();
    let said = |at: u64, len: usize| {
        file.write_all_at(&vec![0x55; len], (16 << 20) + at).unwrap();
        rig.refusal("one", 1)
    };
    assert!(said(8192, 8192).contains("page 0 of the map is damaged, in both of its places"));
    assert!(said(0, 8192).contains("it is no layer over another volume"));
}

#[test]
fn a_base_of_a_size_that_is_no_whole_blocks_is_refused_and_nothing_is_left() {
    let rig = Rig::new();
    Volume::create_with(rig.path("odd"), SIZE + 512, &key(0), &VolumeFormat::new().sector_size(512)).unwrap();
    let error = Volume::fork(rig.path("odd"), &key(0), rig.path("one"), &key(1)).unwrap_err();
    assert!(error.to_string().contains("multiples of 4096"), "{error}");
    assert!(!rig.path("one").exists() && !Volume::inspect(rig.path("odd")).unwrap().is_base);
    assert_eq!(
        Volume::fork(rig.path("base"), &key(9), rig.path("one"), &key(1)).unwrap_err().kind(),
        ErrorKind::VolumeKey
    );
    assert!(!Volume::inspect(rig.path("base")).unwrap().is_base);
    fs::write(rig.path("there"), "kept").unwrap();
    assert!(Volume::fork(rig.path("base"), &key(0), rig.path("there"), &key(1)).is_err());
    assert_eq!(fs::read(rig.path("there")).unwrap(), b"kept");
    assert!(Volume::fork(rig.path("base"), &key(0), rig.path("none/one"), &key(1)).is_err());
    assert!(!Volume::inspect(rig.path("base")).unwrap().is_base, "there is no fork");
    rig.fork("base", 0, "one", 1);
    assert!(Volume::fork(rig.path("base"), &key(0), rig.path("there"), &key(1)).is_err());
    drop(rig.open("one", 1));
}

#[test]
fn a_base_that_is_released_is_written_to_again_and_its_forks_are_refused() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    Volume::release(rig.path("base")).unwrap();
    rig.open("base", 0).write(0, &[9; BLOCK as usize]).unwrap();
    assert!(rig.refusal("one", 1).contains("it is another volume"));
    rig.fork("base", 0, "other", 1);
    assert_eq!(block(&mut rig.open("other", 1), 0), 9);
    assert!(rig.refusal("one", 1).contains("it is another volume"));
}

#[test]
fn a_base_is_not_written_to_while_a_fork_of_it_is_open_whatever_its_header_says() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    let mut fork = rig.open("one", 1);
    Volume::release(rig.path("base")).unwrap();
    std::os::unix::fs::symlink(rig.path("base"), rig.path("link")).unwrap();
    fs::hard_link(rig.path("base"), rig.path("hard")).unwrap();
    for name in ["base", "link", "hard"] {
        let error = Volume::open(rig.path(name), &key(0)).unwrap_err();
        assert!(error.kind() == ErrorKind::Disk && error.to_string().contains("only one may write to it"), "{error}");
    }
    assert_eq!(block(&mut fork, 5), 5);
}

#[test]
fn discards_give_space_back_through_each_layer() {
    let rig = Rig::new();
    rig.fork("base", 0, "one", 1);
    let options = VolumeOptions::new(DiskConfig::new(rig.path("one"))).discard(true);
    let mut disk = Plain::new(Volume::open_with(options, &key(1)).unwrap().into_backend());
    (0..4).for_each(|mib| disk.write(mib << 20, &[7; 1 << 20]).unwrap());
    disk.flush().unwrap();
    let before = rig.taken("one");
    disk.discard(0, 3 << 20).unwrap();
    // The map is stable first, which may take a page, and then the space is free, a piece at a time.
    disk.flush().unwrap();
    let is_free = (0..200).any(|_| {
        disk.flush().unwrap();
        rig.taken("one") + (3 << 20) <= before + (64 << 10)
    });
    assert!(is_free, "{before} {}", rig.taken("one"));
    assert_eq!([block(&mut disk, 0), block(&mut disk, 767), block(&mut disk, 768)], [0, 0, 7]);
}
