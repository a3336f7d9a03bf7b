//! Any file as a saved snapshot: what is read is written, and read again, as the same.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vmcell::{ErrorKind, LoadMemory, Snapshot};

use crate::alloc::Meter;
use crate::clock::within;

const PATIENCE: Duration = Duration::from_secs(5);
/// What reading may hold, beside so many times as much as the file has.
const MOST_HELD: i64 = 2 << 20;
const TIMES: i64 = 64;
/// Longer ones find nothing more.
const LONGEST: usize = 1 << 20;

const PAGE: usize = 4096;
const CHECKSUM: usize = 12;
const SECTIONS: [usize; 3] = [24, 56, 88];

/// Runs one input: the file, as it is and with the checksums that it should have.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes[..bytes.len().min(LONGEST)].to_vec();
    load(&bytes);
    mend(&mut bytes);
    load(&bytes);
}

fn load(bytes: &[u8]) {
    let file = file(bytes);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    for memory in [LoadMemory::Copy, LoadMemory::Map] {
        let mut meter = Meter::new(MOST_HELD + TIMES * bytes.len() as i64);
        let read = meter.run(|| within(PATIENCE, || Snapshot::load_with(&path, memory)));
        match read {
            Ok(snapshot) => go_on(&snapshot),
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Snapshot | ErrorKind::HostMemory), "{kind:?}: {}", error.chain());
            }
        }
    }
}

/// What was taken for a snapshot is one.
fn go_on(snapshot: &Snapshot) {
    snapshot.config().validate().expect("its description was checked");
    let devices: Vec<_> = snapshot.devices().collect();
    let folder = std::env::temp_dir().join(format!("vmcell-fuzz-saved-{}", std::process::id()));
    // The description's paths may be none.
    if snapshot.save_with(&folder, &vmcell::SaveOptions::new().leave_in_cache()).is_ok() {
        let again = Snapshot::load(&folder).expect("what was written is read");
        assert_eq!((again.config(), again.devices().collect::<Vec<_>>()), (snapshot.config(), devices));
        std::fs::remove_file(&folder).expect("it was there");
    }
}

/// In memory, so that it takes no room on a disk.
fn file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("saved", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("there is room");
    file
}

/// Gives the header, and each section that lies in the file, the checksum that it should have.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < PAGE {
        return;
    }
    for at in [SECTIONS[0], SECTIONS[1]] {
        let number =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")) as usize;
        let (offset, len) = (number(bytes, at + 8), number(bytes, at + 16));
        if let Some(section) = offset.checked_add(len).and_then(|end| bytes.get(offset..end)) {
            let checksum = crc32(section).to_le_bytes();
            bytes[at + 24..at + 28].copy_from_slice(&checksum);
        }
    }
    bytes[CHECKSUM..CHECKSUM + 4].fill(0);
    let checksum = crc32(&bytes[..PAGE]).to_le_bytes();
    bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum);
}

/// As IEEE 802.3 has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A snapshot without RAM that is not zeroes, and one that builds on another.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let golden: &[u8] = include_bytes!("../../tests/golden/snapshot-1");
    let number = |at: usize| u64::from_le_bytes(golden[at..at + 8].try_into().expect("eight")) as usize;
    let (blocks, blocks_len) = (number(SECTIONS[1] + 8), number(SECTIONS[1] + 16));
    let end = (blocks + blocks_len).next_multiple_of(PAGE);
    let mut empty = golden[..end].to_vec();
    // Behind the identities, the name of none, and the number of regions: the first region's address and length, and its blocks.
    empty[blocks + 40 + 16..blocks + blocks_len].fill(0);
    empty[SECTIONS[2] + 8..SECTIONS[2] + 16].copy_from_slice(&(end as u64).to_le_bytes());
    empty[SECTIONS[2] + 16..SECTIONS[2] + 24].fill(0);
    mend(&mut empty);
    let mut on_another = empty.clone();
    let regions = empty[blocks + 36..blocks + blocks_len].to_vec();
    on_another.truncate(blocks + 32);
    on_another.extend(4u32.to_le_bytes());
    on_another.extend(b"base");
    on_another.extend(&regions);
    on_another.resize(end.max(on_another.len().next_multiple_of(PAGE)), 0);
    on_another[SECTIONS[1] + 16..SECTIONS[1] + 24].copy_from_slice(&((blocks_len + 4) as u64).to_le_bytes());
    let len = on_another.len() as u64;
    on_another[SECTIONS[2] + 8..SECTIONS[2] + 16].copy_from_slice(&len.to_le_bytes());
    mend(&mut on_another);
    vec![("empty", empty), ("on-another", on_another)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seed_is_taken_and_the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let (_, empty) = seeds().remove(0);
        let file = file(&empty);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(Snapshot::load(path).expect("it is a snapshot").config().name, "golden");
    }

    /// A file in which a guest of 16 GiB has no RAM of its own, but that of the file below.
    fn link(number: u8, below: Option<u8>) -> Vec<u8> {
        let (_, mut bytes) = seeds().remove(0);
        let at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")) as usize;
        let blocks = at(&bytes, SECTIONS[1] + 8);
        bytes.truncate(blocks);
        bytes.extend([number; 16]);
        bytes.extend([below.unwrap_or_default(); 16]);
        let name = below.map(|below| below.to_string()).unwrap_or_default();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend([0u64.to_le_bytes(), GIB_16.to_le_bytes()].concat());
        let kind = if below.is_some() { 2u64 } else { 0 };
        bytes.extend((0..GIB_16 >> 16).flat_map(|_| kind.to_le_bytes()));
        let len = (bytes.len() - blocks) as u64;
        bytes[SECTIONS[1] + 16..SECTIONS[1] + 24].copy_from_slice(&len.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let end = bytes.len() as u64;
        bytes[SECTIONS[2] + 8..SECTIONS[2] + 16].copy_from_slice(&end.to_le_bytes());
        bytes[SECTIONS[2] + 16..SECTIONS[2] + 24].fill(0);
        mend(&mut bytes);
        bytes
    }

    const GIB_16: u64 = 16 << 30;

    #[test]
    fn as_many_files_as_may_build_on_each_other_take_no_more_memory_than_two() {
        let folder = std::env::temp_dir().join(format!("vmcell-chain-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 0..65u8 {
            let below = number.checked_sub(1);
            std::fs::write(folder.join(number.to_string()), link(number, below)).expect("there is room");
        }
        // The list of blocks as it is in the file, as it is read, and what is known of each block in the end.
        let most = (GIB_16 >> 16) * (8 + 8 + 16) + (1 << 20);
        for last in [1, 63] {
            let load = || Snapshot::load_with(folder.join(last.to_string()), LoadMemory::Map);
            let error = Meter::new(most as i64).run(load).expect_err("another size is described");
            assert!(error.to_string().contains("bytes of RAM, and "), "{}", error.chain());
        }
        let error = Snapshot::load(folder.join("64")).expect_err("they are too many");
        assert!(error.to_string().ends_with("it builds on more than 63 files"), "{error}");
        std::fs::remove_dir_all(&folder).expect("it was there");
    }
}
