//! What becomes of pages that are given back, by how they are mapped.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::*;
use crate::config::{MemoryBacking, PageSize};

const MIB: u64 = 1 << 20;
const REGIONS: [(GuestAddress, u64); 2] = [(GuestAddress(0), 4 * MIB), (GuestAddress(4 * MIB), 4 * MIB)];

fn filled(backing: MemoryBacking) -> GuestMemory {
    let memory = GuestMemory::map(&REGIONS, backing, PageSize::Default).unwrap();
    memory.write(GuestAddress(0), &vec![7; 8 << 20]).unwrap();
    memory
}

/// The pages that have lost their content.
fn empty_pages(memory: &GuestMemory) -> Vec<u64> {
    let is_empty = |page: &u64| {
        let mut bytes = [0; 4096];
        memory.read(GuestAddress(page * PAGE), &mut bytes).unwrap();
        assert!(bytes == [0; 4096] || bytes == [7; 4096], "a part of page {page}");
        bytes[0] == 0
    };
    (0..memory.size() / PAGE).filter(is_empty).collect()
}

/// How many bytes of the memory the host keeps.
fn kept(memory: &GuestMemory) -> u64 {
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let count = |(at, len): (u64, u64)| {
        let mut entries = vec![0; (len / PAGE * 8) as usize];
        pagemap.read_exact_at(&mut entries, at / PAGE * 8).unwrap();
        entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64
    };
    memory.regions().map(|region| count((region.host_address, region.len))).sum::<u64>() * PAGE
}

#[test]
fn pages_go_back_step_by_step_and_no_others_do() {
    for (backing, step) in [(MemoryBacking::Anonymous, 2 * MIB), (MemoryBacking::Memfd, MIB / 2)] {
        let memory = filled(backing);
        assert_eq!(kept(&memory), 8 * MIB, "{backing:?}");
        let (mut at, end, mut steps) = (MIB + 3 * PAGE, 6 * MIB - PAGE, 0);
        while let Some(given) = memory.give_back(GuestAddress(at), end - at) {
            given.result.unwrap();
            assert!((at + given.len).is_multiple_of(step) || at + given.len == end, "{backing:?}: {at:#x}");
            at += given.len;
            steps += 1;
        }
        assert_eq!((at, steps), (end, (5 * MIB).div_ceil(step)), "{backing:?}");
        assert_eq!(kept(&memory), 3 * MIB + 4 * PAGE, "{backing:?}");
        assert_eq!(empty_pages(&memory), ((MIB / PAGE + 3)..(6 * MIB / PAGE - 1)).collect::<Vec<_>>(), "{backing:?}");
    }
}

#[test]
fn a_file_in_memory_gives_its_storage_back() {
    let memory = filled(MemoryBacking::Memfd);
    memory.give_back(GuestAddress(4 * MIB), MIB / 2).unwrap().result.unwrap();
    let stored = |region: &MmapRegion| region.file_offset().unwrap().file().metadata().unwrap().blocks() * 512;
    assert_eq!(memory.mmap().iter().map(|region| stored(region)).collect::<Vec<_>>(), [4 * MIB, 7 * MIB / 2]);
}

#[test]
fn what_is_no_ram_or_no_whole_page_is_left_alone() {
    let memory = filled(MemoryBacking::Anonymous);
    for (gpa, len) in [(0, 0), (1, PAGE), (0, PAGE - 1), (8 * MIB, PAGE), (u64::MAX - PAGE + 1, PAGE), (PAGE / 2, MIB)]
    {
        assert!(memory.give_back(GuestAddress(gpa), len).is_none(), "{gpa:#x} {len:#x}");
    }
    let last = memory.give_back(GuestAddress(8 * MIB - PAGE), !(PAGE - 1)).unwrap();
    assert_eq!(last.len, PAGE);
    assert_eq!(empty_pages(&memory), [8 * MIB / PAGE - 1]);
}

#[test]
fn memory_that_is_locked_stays_and_the_host_says_so() {
    let memory = filled(MemoryBacking::Anonymous);
    if memory.lock().is_ok() {
        let given = memory.give_back(GuestAddress(0), PAGE).unwrap();
        assert_eq!(given.result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(empty_pages(&memory).is_empty());
    }
}
