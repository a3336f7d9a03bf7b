//! A page of the map: its entries, behind what tells a whole page of this file from every other one.

use super::entry::Entry;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
const HEAD: usize = 32;
/// Entries of a page: the map has so many clusters on each.
pub(super) const ENTRIES: usize = (PAGE - HEAD) / 8;

const MAGIC: &[u8; 4] = b"VMCP";

/// Which page of which file it is, and how often it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first half of the file's identity.
    pub(super) of: u64,
    pub(super) index: u32,
    pub(super) generation: u64,
}

pub(super) fn encode(place: Place, entries: &[Entry]) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let (head, rest) = page.split_at_mut(HEAD);
    let fields: [&[u8]; 5] =
        [MAGIC, &[0; 4], &place.of.to_le_bytes(), &place.generation.to_le_bytes(), &place.index.to_le_bytes()];
    let bytes = fields.concat();
    head.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
    let (slots, _) = rest.as_chunks_mut::<8>();
    slots.iter_mut().zip(entries).for_each(|(slot, entry)| *slot = entry.to_bits().to_le_bytes());
    let sum = crc32fast::hash(&page).to_le_bytes();
    if let Some(place) = page.get_mut(4..8) {
        place.copy_from_slice(&sum);
    }
    page
}

/// The generation and the entries, if it is that page of that file, whole, and sound.
pub(super) fn decode(page: &[u8; PAGE], of: u64, index: u32) -> Option<(u64, Vec<Entry>)> {
    let number = |at: usize| page.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let mut bare = *page;
    bare.get_mut(4..8)?.fill(0);
    let said = page.get(4..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    let its = page.get(24..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    if !page.starts_with(MAGIC) || crc32fast::hash(&bare) != said || number(8)? != of || its != index {
        return None;
    }
    let (slots, _) = page.get(HEAD..)?.as_chunks();
    let entries: Vec<Entry> = slots.iter().map(|slot| Entry::from_bits(u64::from_le_bytes(*slot))).collect();
    entries.iter().all(|entry| entry.is_sound()).then_some((number(16)?, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_and_no_other_one_is_taken_for_it() {
        let place = Place { of: 0x1122_3344_5566_7788, index: 9, generation: 3 };
        let entries: Vec<_> =
            (0..ENTRIES as u32).map(|cluster| Entry { cluster, written: u16::from(cluster > 0), zeroes: 0 }).collect();
        let page = encode(place, &entries);
        assert_eq!(decode(&page, place.of, 9), Some((3, entries.clone())));
        assert_eq!((decode(&page, place.of, 8), decode(&page, place.of + 1, 9)), (None, None));
        for at in [0, 5, 20, 100, PAGE - 1] {
            let mut damaged = page;
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged, place.of, 9), None, "{at}");
        }
        let unsound = encode(place, &[Entry { cluster: 0, written: 1, zeroes: 0 }]);
        assert_eq!(decode(&unsound, place.of, 9), None);
        assert_eq!(decode(&encode(place, &[]), place.of, 9).unwrap().1, vec![Entry::default(); ENTRIES]);
    }
}
