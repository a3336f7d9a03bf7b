//! Memory in any regions, and buffers of any ranges of it, against plain vectors.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PAGE: u64 = 0x1000;

/// Regions in ascending order, some of which touch: for each how many pages are left out before it, and how many it has.
fn regions() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((0..3u64, 1..4u64), 1..5).prop_map(|pages| {
        let mut end = 0;
        let place = |(hole, len): (u64, u64)| {
            let start = end + hole * PAGE;
            end = start + len * PAGE;
            (start, len * PAGE)
        };
        pages.into_iter().map(place).collect()
    })
}

fn map(regions: &[(u64, u64)]) -> GuestMemory {
    let regions: Vec<_> = regions.iter().map(|(start, len)| (GuestAddress(*start), *len)).collect();
    GuestMemory::anonymous(&regions).unwrap()
}

/// Whether each byte is in a region.
fn is_ram(regions: &[(u64, u64)], start: u64, len: u64) -> bool {
    let inside = |at: u64| regions.iter().any(|(start, len)| (*start..start + len).contains(&at));
    start.checked_add(len).is_some_and(|end| (start..end).step_by(256).chain([start, end.max(1) - 1]).all(inside))
}

/// An address, mostly about the edge of a page.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..24u64, -3..3i64).prop_map(|(page, off)| (page * PAGE).saturating_add_signed(off)),
        1 => any::<u64>(),
        1 => (0..9u64).prop_map(|off| u64::MAX - off),
    ]
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (address(), prop_oneof![4 => 1..2 * PAGE, 1 => any::<u64>(), 1 => Just(1)])
}

/// The bytes of memory as one vector, from address 0 on.
fn fill(memory: &GuestMemory, regions: &[(u64, u64)]) -> Vec<u8> {
    let end = regions.last().map_or(0, |(start, len)| start + len);
    let bytes: Vec<u8> = (0..end).map(|at| (at % 251) as u8).collect();
    for (start, len) in regions {
        memory.write(GuestAddress(*start), &bytes[*start as usize..(start + len) as usize]).unwrap();
    }
    bytes
}

proptest! {
    #[test]
    fn a_range_is_ram_if_each_of_its_bytes_is(regions in regions(), (start, len) in range()) {
        prop_assert_eq!(map(&regions).contains(GuestAddress(start), len), is_ram(&regions, start, len));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes(regions in regions(), (start, len) in range()) {
        let memory = map(&regions);
        let mut expected = fill(&memory, &regions);
        // Nobody has more bytes than that.
        let bytes = vec![0xee; len.min(4 * PAGE) as usize];
        let inside = is_ram(&regions, start, bytes.len() as u64);
        prop_assert_eq!(memory.write(GuestAddress(start), &bytes).is_ok(), inside);
        let mut found = vec![0; bytes.len()];
        prop_assert_eq!(memory.read(GuestAddress(start), &mut found).is_ok(), inside);
        if inside {
            prop_assert_eq!(&found, &bytes);
            expected[start as usize..start as usize + bytes.len()].copy_from_slice(&bytes);
        }
        for (start, len) in regions {
            let mut found = vec![0; len as usize];
            memory.read(GuestAddress(start), &mut found).unwrap();
            prop_assert!(found == expected[start as usize..(start + len) as usize]);
        }
    }

    #[test]
    fn regions_that_cannot_be_are_refused(given in vec((0..6u64, 0..3u64), 0..4), odd in 0..4u64) {
        let regions: Vec<_> = given.iter().map(|(start, len)| (GuestAddress(start * PAGE), len * PAGE + odd / 3)).collect();
        let apart = given.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
        let is_fine = !given.is_empty() && apart && odd < 3 && given.iter().all(|(_, len)| *len > 0);
        prop_assert_eq!(GuestMemory::anonymous(&regions).is_ok(), is_fine);
    }

    #[test]
    fn a_buffer_of_ranges_is_as_one_vector(
        regions in regions(),
        parts in vec((0..0x3000u64, 0..600u32), 0..8),
        steps in vec((0..5u8, 0..3000u64, 0..700usize), 0..12),
    ) {
        let memory = map(&regions);
        let content = fill(&memory, &regions);
        // They must not overlap, or a write of one would show in another.
        let mut end = 0;
        let parts: Vec<(u64, u32)> = parts.into_iter().filter_map(|(skip, len)| {
            let start = end + skip % 300;
            let fits = is_ram(&regions, start, len.into());
            end = if fits { start + u64::from(len) } else { end + 257 };
            fits.then_some((start, len))
        }).collect();
        let mut ranges = GuestRanges::new(RangeList::default(), Lessor::new(memory.clone()).lease());
        ranges.extend(parts.iter().map(|(start, len)| (GuestAddress(*start), *len))).unwrap();
        let mut expected: Vec<u8> = parts.iter()
            .flat_map(|(start, len)| &content[*start as usize..*start as usize + *len as usize]).copied().collect();
        for (step, offset, len) in steps {
            let inside = offset as usize + len <= expected.len();
            match step {
                0 => {
                    prop_assert_eq!(ranges.copy_in(offset, &vec![step; len]).is_ok(), inside);
                    if inside {
                        expected[offset as usize..][..len].fill(step);
                    }
                }
                1 => {
                    let mut found = vec![0; len];
                    prop_assert_eq!(ranges.copy_out(offset, &mut found).is_ok(), inside);
                    prop_assert!(!inside || found == expected[offset as usize..][..len]);
                }
                2 => {
                    let tail = ranges.split_off(offset);
                    let rest = expected.split_off(expected.len().min(offset as usize));
                    prop_assert_eq!(all(&tail), rest);
                }
                3 => {
                    let mut found = vec![0; len];
                    let enough = len <= expected.len();
                    prop_assert_eq!(ranges.take_front(&mut found), enough);
                    if enough {
                        prop_assert_eq!(found, expected.drain(..len).collect::<Vec<_>>());
                    }
                }
                _ => {
                    let count = offset as usize % 3;
                    let gone = ranges.len_of(count);
                    ranges.drop_front(count);
                    expected.drain(..gone as usize);
                }
            }
            prop_assert_eq!(ranges.len(), expected.len() as u64);
            prop_assert_eq!(ranges.is_empty(), ranges.count() == 0);
        }
        prop_assert_eq!(all(&ranges), expected);
    }
}

fn all(ranges: &GuestRanges) -> Vec<u8> {
    let mut bytes = vec![0; ranges.len() as usize];
    ranges.copy_out(0, &mut bytes).unwrap();
    bytes
}
