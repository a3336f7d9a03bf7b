//! Any map as that of a volume's fork, with the checksums that it should have: it is refused, or is that of a disk which keeps what is
//! written to it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use vmcell::block::FileBackend;
use vmcell::volume::{Encrypted, Key, Volume, VolumeOptions};
use vmcell::{DiskConfig, Engine, ErrorKind};

#[path = "../../tests/support/plain.rs"]
mod plain;

use crate::alloc::{Meter, uncounted};
use crate::clock::within;
use plain::Plain;

const PATIENCE: Duration = Duration::from_secs(5);
/// What looking at it may hold: headers, buffers of two layers, and the map.
const MOST_HELD: i64 = 32 << 20;

const SIZE: u64 = 1 << 20;
/// Where the data of a volume begin.
const DATA: u64 = 16 << 20;
const PAGE: usize = 4096;
/// Two headers, and both slots of the first two pages of the map.
const PAGES: usize = 6;
/// Where a page has its checksum: the header, and the map.
const CHECKSUMS: [usize; 2] = [12, 4];

const SIGNED: u8 = 1;

/// Runs one input: whether pages get their checksums, and bytes that are changed: the page, where, and to what.
pub fn run(bytes: &[u8]) {
    let Some((tricks, changes)) = bytes.split_first() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (base, fork) = (folder.path().join("base"), folder.path().join("fork"));
    uncounted(|| {
        Volume::create(&base, SIZE, &key(1)).expect("a volume");
        Volume::fork(&base, &key(1), &fork, &key(2)).expect("a fork");
        change(&fork, *tricks, changes);
    });
    Meter::new(MOST_HELD).run(|| within(PATIENCE, || look_at(&fork)));
}

fn key(number: u8) -> Key {
    Key::of_data(&[number; 64]).expect("it is long enough")
}

/// Decrypts the pages, changes them, and encrypts them again.
fn change(path: &Path, tricks: u8, changes: &[u8]) {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let mut pages = vec![0; PAGES * PAGE];
    file.read_exact_at(&mut pages, DATA).expect("it is as long as that");
    let data = memory(&pages);
    let below = FileBackend::new(data.try_clone().expect("a descriptor")).expect("a disk");
    let mut plain = Plain::new(Encrypted::over(below, &key(2), PAGE).expect("a cipher"));
    let mut text = plain.read(0, pages.len()).expect("it is read");
    for change in changes.as_chunks::<4>().0 {
        let [page, low, high, value] = *change;
        let at = usize::from(u16::from_le_bytes([low, high])) % PAGE;
        text[usize::from(page) % PAGES * PAGE + at] = value;
    }
    if tricks & SIGNED != 0 {
        for (index, page) in text.chunks_exact_mut(PAGE).enumerate() {
            sign(page, CHECKSUMS[usize::from(index >= 2)]);
        }
    }
    plain.write(0, &text).expect("it is written");
    plain.flush().expect("it is stable");
    data.read_exact_at(&mut pages, 0).expect("it is as long as that");
    file.write_all_at(&pages, DATA).expect("there is room");
}

fn sign(page: &mut [u8], at: usize) {
    page[at..at + 4].fill(0);
    let checksum = crc32fast::hash(page);
    page[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

fn memory(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("fork", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let file = File::from(fd);
    file.write_all_at(bytes, 0).expect("there is room");
    file
}

fn open(path: &Path) -> Option<Plain> {
    let mut disk = DiskConfig::new(path);
    disk.engine = Engine::Sync;
    match Volume::open_with(VolumeOptions::new(disk), &key(2)) {
        Ok(volume) => Some(Plain::new(volume.into_backend())),
        Err(error) => {
            // The name of the base and its key are in the header.
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Volume | ErrorKind::VolumeKey | ErrorKind::Disk),
                "{kind:?}: {}",
                error.chain()
            );
            None
        }
    }
}

/// What the file holds may be anything, and may be full; but what was written and flushed is there when it is opened again.
fn look_at(path: &Path) {
    let Some(mut disk) = open(path) else { return };
    let capacity = disk.info().capacity;
    let places = [0, 1 << 16, capacity.saturating_sub(PAGE as u64)].map(|at| at / PAGE as u64 * PAGE as u64);
    let mut kept = Vec::new();
    for (number, at) in (1..).zip(places) {
        let _ = disk.read(at, PAGE);
        if disk.write(at, &[number; PAGE]).is_ok() {
            kept.retain(|(other, _)| *other != at);
            kept.push((at, number));
        }
    }
    let is_stable = disk.flush().is_ok();
    drop(disk);
    if !is_stable {
        return;
    }
    let mut disk = open(path).expect("it was opened before");
    for (at, number) in kept {
        assert_eq!(disk.read(at, PAGE).expect("it is read"), [number; PAGE], "at {at:#x}");
    }
}

/// A new fork, one whose map is damaged, entries for a cluster that is another's and for one that there is no room for, a larger disk than there is map
/// for, and layout 2.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |page: u8, at: u16, bytes: &[u8]| {
        let change = |(at, value): (u16, &u8)| [&[page][..], &at.to_le_bytes(), &[*value]].concat();
        (at..).zip(bytes).flat_map(change).collect::<Vec<_>>()
    };
    let entry = |cluster: u32| [cluster.to_le_bytes(), [0xff; 4]].concat();
    let seed = |changes: &[Vec<u8>]| [&[SIGNED][..], &changes.concat()].concat();
    let page = |entries: &[u8]| [bytes(2, 0, b"VMCP"), bytes(2, 32, entries)].concat();
    vec![
        ("new", vec![SIGNED]),
        ("unsigned", [&[0][..], &bytes(0, 60, &[1])].concat()),
        ("one-cluster-twice", seed(&[page(&[entry(1), entry(1)].concat())])),
        ("no-such-cluster", seed(&[page(&entry(u32::MAX))])),
        ("huge", seed(&[bytes(0, 56, &[0, 0, 0, 0, 0, 0xff]), bytes(1, 56, &[0, 0, 0, 0, 0, 0xff])])),
        (
            "layout-2",
            seed(&[bytes(0, 8, &[2]), bytes(0, 88, &[0, 0x20, 0]), bytes(0, 96, &[0, 0, 1]), bytes(0, 104, &[80])]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_that_was_not_changed_is_one_and_a_damaged_one_is_refused() {
        for (changes, is_one) in [(&[SIGNED][..], true), (&[0, 0, 60, 0, 1, 1, 60, 0, 1], false)] {
            let folder = tempfile::tempdir().expect("a folder");
            let (base, fork) = (folder.path().join("base"), folder.path().join("fork"));
            Volume::create(&base, SIZE, &key(1)).expect("a volume");
            Volume::fork(&base, &key(1), &fork, &key(2)).expect("a fork");
            change(&fork, changes[0], &changes[1..]);
            assert_eq!(open(&fork).is_some(), is_one);
        }
    }
}
