//! Templates of each kind of RAM.

use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;

use super::*;
use crate::config::MemoryBacking;
use crate::error::ErrorKind;

const REGIONS: [(GuestAddress, u64); 2] = [(GuestAddress(0), 0x3_0000), (GuestAddress(0x10_0000), 0x2_1000)];
/// At ends, and in between.
const MARKS: [u64; 5] = [0, 0x1_ffff, 0x2_ffff, 0x10_0000, 0x12_0fff];
const BACKINGS: [MemoryBacking; 2] = [MemoryBacking::Anonymous, MemoryBacking::Memfd];

fn ram(backing: MemoryBacking) -> (GuestMemory, MemoryConfig) {
    let config = MemoryConfig::default().backing(backing);
    (GuestMemory::configured(&REGIONS, &config).unwrap(), config)
}

fn byte(memory: &GuestMemory, gpa: u64) -> u8 {
    let mut bytes = [0];
    memory.read(GuestAddress(gpa), &mut bytes).unwrap();
    bytes[0]
}

fn mark(memory: &GuestMemory, value: u8) {
    MARKS.iter().for_each(|gpa| memory.write(GuestAddress(*gpa), &[value]).unwrap());
}

fn fork(template: &Template) -> GuestMemory {
    GuestMemory::copy_of(template, &REGIONS, &MemoryConfig::default()).unwrap()
}

#[test]
fn copies_begin_with_the_content_and_none_sees_what_another_or_the_source_changes() {
    for backing in BACKINGS {
        let (source, config) = ram(backing);
        mark(&source, 7);
        let frozen = source.freeze(&source.survey(), &config).unwrap();
        source.write(GuestAddress(0), &[1]).unwrap();
        let template = frozen.finish();
        source.write(GuestAddress(0x1_ffff), &[1]).unwrap();
        let [one, other] = [(); 2].map(|()| fork(&template));
        one.write(GuestAddress(0x12_0fff), &[2]).unwrap();
        assert_eq!(MARKS.map(|gpa| byte(&other, gpa)), [7; 5], "{backing:?}");
        assert_eq!([1, 0x2_0000, 0x11_0000].map(|gpa| byte(&other, gpa)), [0; 3], "{backing:?}");
        assert_eq!(MARKS.map(|gpa| byte(&source, gpa)), [1, 1, 7, 7, 7], "{backing:?}");
        assert_eq!(byte(&one, 0x12_0fff), 2, "{backing:?}");
    }
}

#[test]
fn a_template_of_what_was_one_before_holds_what_changed_since_and_the_first_stays_as_it_was() {
    for backing in BACKINGS {
        let (mut memory, config) = ram(backing);
        mark(&memory, 1);
        let mut templates = vec![memory.freeze(&memory.survey(), &config).unwrap().finish()];
        for round in 2..10u8 {
            if round % 3 == 0 {
                memory = fork(templates.last().unwrap());
            }
            memory.write(GuestAddress(MARKS[usize::from(round) % 5]), &[round]).unwrap();
            memory.write(GuestAddress(u64::from(round) * 0x3000), &[round]).unwrap();
            templates.push(memory.freeze(&memory.survey(), &config).unwrap().finish());
        }
        for (index, template) in templates.iter().enumerate() {
            let fork = fork(template);
            let last = index as u8 + 1;
            for round in 2..10u8 {
                let expected = if round <= last { round } else { 0 };
                assert_eq!(byte(&fork, u64::from(round) * 0x3000), expected, "{backing:?} {index} {round}");
            }
            for (at, gpa) in MARKS.into_iter().enumerate() {
                let newest = (2..=last).rev().find(|round| usize::from(*round) % 5 == at);
                assert_eq!(byte(&fork, gpa), newest.unwrap_or(1), "{backing:?} {index} {gpa:#x}");
            }
        }
    }
}

#[test]
fn only_changed_pages_are_copied_the_second_time_and_all_of_them_if_they_are_all_over() {
    let regions = [(GuestAddress(0), 256 << 20)];
    let config = MemoryConfig::default().backing(MemoryBacking::Memfd);
    let memory = GuestMemory::configured(&regions, &config).unwrap();
    (0..256u64).for_each(|mib| memory.write(GuestAddress(mib << 20), &[1]).unwrap());
    let stored = |template: &Template| {
        let files = template.regions[0].extents.iter().filter_map(|extent| extent.place.as_ref());
        files.map(|(file, _)| file.metadata().unwrap()).map(|file| (file.st_ino(), file.st_blocks() * 512)).collect()
    };
    let first: std::collections::BTreeMap<_, _> = stored(&memory.freeze(&memory.survey(), &config).unwrap().finish());
    assert_eq!(first.values().sum::<u64>(), 256 * 4096);
    memory.write(GuestAddress(5 << 20), &[2; 4096]).unwrap();
    let second: std::collections::BTreeMap<_, _> = stored(&memory.freeze(&memory.survey(), &config).unwrap().finish());
    assert_eq!((second.len(), second.values().sum::<u64>()), (2, 257 * 4096));
    (0..256u64).for_each(|mib| memory.write(GuestAddress(mib << 20), &[3]).unwrap());
    let third = memory.freeze(&memory.survey(), &config).unwrap().finish();
    assert_eq!(third.regions[0].extents.len(), 1, "one file again");
    let fork = GuestMemory::copy_of(&third, &regions, &config).unwrap();
    assert_eq!([0, 5 << 20, 255 << 20].map(|gpa| byte(&fork, gpa)), [3; 3]);
    assert_eq!([(5 << 20) + 1, 1].map(|gpa| byte(&fork, gpa)), [2, 0]);
}

#[test]
fn snapshots_of_a_guest_that_uses_a_page_of_each_time_keep_no_more_than_two_times_its_memory_and_the_last_one() {
    let regions = [(GuestAddress(0), 8 << 20)];
    let config = MemoryConfig::default().backing(MemoryBacking::Memfd);
    let memory = GuestMemory::configured(&regions, &config).unwrap();
    for round in 0..60u8 {
        memory.write(GuestAddress(0), &vec![round; 4 << 20]).unwrap();
        memory.write(GuestAddress((4 << 20) + u64::from(round) * 0x1000), &[round]).unwrap();
        let template = memory.freeze(&memory.survey(), &config).unwrap().finish();
        let stored = in_memory(&template.regions[0].extents).unwrap();
        assert!(stored <= 16 << 20, "{stored} after {round}");
        let fork = GuestMemory::copy_of(&template, &regions, &config).unwrap();
        for earlier in 0..=round {
            assert_eq!(byte(&fork, (4 << 20) + u64::from(earlier) * 0x1000), earlier);
        }
        assert_eq!(byte(&fork, (4 << 20) - 1), round);
    }
}

#[test]
fn what_was_never_used_takes_no_page_of_the_templates_file_when_it_is() {
    let regions = [(GuestAddress(0), 64 << 20)];
    let config = MemoryConfig::default().backing(MemoryBacking::Memfd);
    let memory = GuestMemory::configured(&regions, &config).unwrap();
    memory.write(GuestAddress(40 << 20), &[1]).unwrap();
    let survey = memory.survey();
    // Used between the survey and the freeze.
    memory.write(GuestAddress(10 << 20), &[2]).unwrap();
    let template = memory.freeze(&survey, &config).unwrap().finish();
    let fork = GuestMemory::copy_of(&template, &regions, &config).unwrap();
    for memory in [&memory, &fork] {
        memory.write(GuestAddress(50 << 20), &[3; 1 << 20]).unwrap();
        assert_eq!([10 << 20, 40 << 20, 50 << 20, 60 << 20].map(|gpa| byte(memory, gpa)), [2, 1, 3, 0]);
    }
    let files = template.regions[0].extents.iter().filter_map(|extent| extent.place.as_ref());
    let stored = files.map(|(file, _)| file.metadata().unwrap().st_blocks() * 512).max();
    assert_eq!(stored, Some(2 * 4096));
}

#[test]
fn nobody_can_change_the_content_and_pages_of_zeroes_take_no_room() {
    for backing in BACKINGS {
        let config = MemoryConfig::default().backing(backing);
        let source = GuestMemory::configured(&[(GuestAddress(0), 16 << 20)], &config).unwrap();
        source.write(GuestAddress(8 << 20), &[7]).unwrap();
        let template = source.freeze(&source.survey(), &config).unwrap().finish();
        let (file, _) = template.regions[0].extents.iter().find_map(|extent| extent.place.clone()).unwrap();
        assert!(file.write_all_at(&[1], 0).is_err() && file.set_len(0).is_err());
        assert!(file.metadata().unwrap().st_blocks() * 512 <= STEP as u64);
        // SAFETY: a new mapping at a place of the kernel's choice, which must be refused.
        let shared =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_eq!(shared, libc::MAP_FAILED);
    }
}

#[test]
fn threads_that_use_the_memory_meanwhile_find_it_at_every_moment() {
    let (memory, config) = ram(MemoryBacking::Memfd);
    mark(&memory, 7);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0u8;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round = round.wrapping_add(1);
                memory.write(GuestAddress(0x5000), &[round]).unwrap();
                assert_eq!(byte(&memory, 0x5000), round);
                assert_eq!(byte(&memory, 0x12_0fff), 7);
            }
        });
        for _ in 0..50 {
            drop(memory.freeze(&memory.survey(), &config).unwrap().finish());
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn pages_that_go_back_are_the_templates_again_and_the_template_keeps_them() {
    let (memory, config) = ram(MemoryBacking::Memfd);
    mark(&memory, 7);
    let template = memory.freeze(&memory.survey(), &config).unwrap().finish();
    mark(&memory, 8);
    assert!(memory.give_back(GuestAddress(0), 0x1000).unwrap().result.is_ok());
    assert_eq!((byte(&memory, 0), byte(&memory, 0x1_ffff)), (7, 8));
    assert_eq!(MARKS.map(|gpa| byte(&fork(&template), gpa)), [7; 5]);
    memory.preallocate().unwrap();
    assert_eq!(byte(&memory, 0x1_ffff), 8);
}

#[test]
fn neither_a_child_process_nor_a_core_dump_gets_memory_that_was_made_a_template() {
    let (memory, config) = ram(MemoryBacking::Memfd);
    mark(&memory, 7);
    for _ in 0..2 {
        memory.freeze(&memory.survey(), &config).unwrap().finish();
        mark(&memory, 8);
        for region in memory.regions() {
            let flags = super::super::smaps::flags_at(region.host_address as usize);
            assert!(flags.contains(" dc ") && flags.contains(" dd "), "{flags}");
        }
    }
}

#[test]
fn a_guest_of_another_size_is_refused() {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 2 << 20)]).unwrap();
    let template = memory.freeze(&memory.survey(), &MemoryConfig::default()).unwrap().finish();
    let other = [(GuestAddress(0), 4 << 20)];
    let error = GuestMemory::copy_of(&template, &other, &MemoryConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.to_string(), "a guest of 4 MiB was asked for, allowed are the 2 MiB of the one that was saved");
}
