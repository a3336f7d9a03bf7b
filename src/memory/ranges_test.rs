//! Ranges as one buffer: copies, cuts, and what is taken off the front.

use super::*;
use crate::memory::{GuestMemory, Lessor};

fn memory() -> GuestMemory {
    GuestMemory::anonymous(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
}

fn ranges(memory: &GuestMemory, parts: &[(u64, u32)]) -> Result<GuestRanges> {
    let mut ranges = GuestRanges::new(RangeList::default(), Lessor::new(memory.clone()).lease());
    ranges.extend(parts.iter().map(|&(gpa, len)| (GuestAddress(gpa), len)))?;
    Ok(ranges)
}

fn bytes(ranges: &GuestRanges) -> Vec<u8> {
    let mut bytes = vec![0; ranges.len() as usize];
    ranges.copy_out(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn copies_cross_ranges_and_regions() {
    let memory = memory();
    let ranges = ranges(&memory, &[(0xffe, 4), (0x10, 0), (0x20, 3)]).unwrap();
    assert_eq!((ranges.len(), ranges.count()), (7, 3));
    ranges.copy_in(1, b"abcdef").unwrap();
    assert_eq!(bytes(&ranges), b"\0abcdef");
    let mut part = [0; 3];
    ranges.copy_out(3, &mut part).unwrap();
    assert_eq!(&part, b"cde");
    memory.read(GuestAddress(0x20), &mut part).unwrap();
    assert_eq!(&part, b"def");
}

#[test]
fn copies_past_the_end_are_refused_and_change_nothing() {
    let memory = memory();
    let ranges = ranges(&memory, &[(0, 4)]).unwrap();
    for (offset, len) in [(0, 5), (4, 1), (5, 0), (u64::MAX, 2)] {
        assert!(ranges.copy_in(offset, &vec![7; len]).is_err(), "{offset} {len}");
        assert!(ranges.copy_out(offset, &mut vec![7; len]).is_err(), "{offset} {len}");
    }
    assert_eq!(bytes(&ranges), [0; 4]);
}

#[test]
fn a_copy_from_one_memory_to_another_crosses_the_ranges_of_both() {
    let (one, other) = (memory(), memory());
    one.write(GuestAddress(0xffa), b"0123456789ab").unwrap();
    let from = ranges(&one, &[(0xffa, 5), (0xfff, 1), (0x1000, 6)]).unwrap();
    for (offset, to_offset, len) in [(0, 0, 12), (1, 2, 9), (5, 0, 2), (11, 11, 1), (3, 3, 0)] {
        let to = ranges(&other, &[(0x10, 3), (0x20, 4), (0xffe, 7)]).unwrap();
        to.copy_in(0, &[b'.'; 14]).unwrap();
        from.copy_to(offset, &to, to_offset, len).unwrap();
        let mut expected = vec![b'.'; 14];
        let (at, to_at) = (offset as usize, to_offset as usize);
        expected[to_at..to_at + len].copy_from_slice(&b"0123456789ab"[at..at + len]);
        assert_eq!(bytes(&to), expected, "{offset} {to_offset} {len}");
        for (offset, to_offset, len) in [(0, 0, 13), (12, 0, 1), (0, 14, 1), (u64::MAX, 0, 1), (0, u64::MAX, 1)] {
            assert!(from.copy_to(offset, &to, to_offset, len).is_err());
        }
        assert_eq!(bytes(&to), expected);
    }
}

#[test]
fn parts_that_are_taken_off_the_front_are_a_buffer_of_their_own() {
    let memory = memory();
    memory.write(GuestAddress(0), b"abcdefgh").unwrap();
    for count in 0..=4 {
        let mut rest = ranges(&memory, &[(0, 3), (4, 1), (5, 3)]).unwrap();
        let taken = rest.take_parts(count, RangeList::default());
        assert_eq!((taken.count(), rest.count()), (count.min(3), 3 - count.min(3)));
        assert_eq!([bytes(&taken), bytes(&rest)].concat(), b"abcefgh");
    }
}

#[test]
fn a_range_outside_memory_is_refused() {
    assert!(ranges(&memory(), &[(0x1fff, 2)]).is_err());
    assert!(ranges(&memory(), &[(u64::MAX, 2)]).is_err());
}

#[test]
fn both_halves_of_a_cut_hold_their_bytes() {
    let memory = memory();
    memory.write(GuestAddress(0), b"abcdefgh").unwrap();
    for at in 0..=10u64 {
        let mut head = ranges(&memory, &[(0, 3), (3, 1), (4, 4)]).unwrap();
        let tail = head.split_off(at);
        let cut = at.min(8) as usize;
        assert_eq!(bytes(&head), b"abcdefgh"[..cut], "{at}");
        assert_eq!(bytes(&tail), b"abcdefgh"[cut..], "{at}");
    }
}

#[test]
fn parts_are_taken_off_the_front_and_added_at_the_end() {
    let memory = memory();
    memory.write(GuestAddress(0), b"abcdefgh").unwrap();
    let mut ring = ranges(&memory, &[(0, 1), (1, 1), (2, 1)]).unwrap();
    for gpa in 3..8 {
        ring.drop_front(1);
        ring.extend([(GuestAddress(gpa), 1)]).unwrap();
        assert_eq!((ring.len(), ring.count()), (3, 3));
    }
    assert_eq!(bytes(&ring), b"fgh");
    ring.drop_front(9);
    assert!(ring.is_empty());
}

#[test]
fn the_last_lease_to_end_is_announced_if_it_is_awaited() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let lessor = Lessor::new(memory());
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    lessor.on_last(move || _ = counted.fetch_add(1, Ordering::SeqCst));
    drop(lessor.lease());
    assert_eq!((lessor.count(), calls.load(Ordering::SeqCst)), (0, 0));
    lessor.await_last(true);
    let mut one = GuestRanges::new(RangeList::default(), lessor.lease());
    let other = one.split_off(0);
    std::thread::spawn(move || drop(one)).join().unwrap();
    assert_eq!((lessor.count(), calls.load(Ordering::SeqCst)), (1, 0));
    drop(other);
    assert_eq!((lessor.count(), calls.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn what_is_taken_off_the_front_is_no_longer_sent() {
    let memory = memory();
    memory.write(GuestAddress(0x100), b"abcdefgh").unwrap();
    let list = || [(GuestAddress(0x100), 2), (GuestAddress(0x102), 2), (GuestAddress(0x104), 4)];
    for (len, front, rest) in [(0, &b""[..], 8), (1, b"a", 7), (2, b"ab", 6), (5, b"abcde", 3), (8, b"abcdefgh", 0)] {
        let mut ranges = GuestRanges::new(RangeList::default(), Lessor::new(memory.clone()).lease());
        ranges.extend(list()).unwrap();
        let mut bytes = vec![0; len];
        assert!(ranges.take_front(&mut bytes));
        assert_eq!((bytes.as_slice(), ranges.len()), (front, rest));
        let mut left = vec![0; rest as usize];
        ranges.copy_out(0, &mut left).unwrap();
        assert_eq!([front, &left].concat(), b"abcdefgh");
        assert!(!ranges.take_front(&mut vec![0; rest as usize + 1]));
        assert_eq!(ranges.len(), rest, "nothing was taken off");
        ranges.clear();
        assert_eq!((ranges.len(), ranges.count()), (0, 0));
    }
}
