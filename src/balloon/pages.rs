//! Which pages are in the balloon.

/// A bit for each page of a part of 128 MiB.
type Part = [u64; WORDS];
const WORDS: usize = 512;
const PART_PAGES: u64 = WORDS as u64 * 64;

/// A set of page numbers. It takes a bit for each page, of those parts of the RAM that have ever had a page in the balloon.
#[derive(Debug)]
pub(super) struct Pages {
    parts: Vec<Option<Box<Part>>>,
}

impl Pages {
    /// An empty set, for pages below `end`.
    pub(super) fn new(end: u64) -> Self {
        let parts = usize::try_from(end.div_ceil(PART_PAGES)).unwrap_or_default();
        Self { parts: std::iter::repeat_with(|| None).take(parts).collect() }
    }

    /// Adds a page. Says whether it was not there before.
    pub(super) fn insert(&mut self, page: u64) -> bool {
        let Some((word, bit)) = self.place(page, true) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Removes a page. Says whether it was there.
    pub(super) fn remove(&mut self, page: u64) -> bool {
        let Some((word, bit)) = self.place(page, false) else { return false };
        let was_there = *word & bit != 0;
        *word &= !bit;
        was_there
    }

    /// Adds the pages of a word as [`words`](Self::words) tells it. Says whether there is room for it, and it was empty.
    pub(super) fn insert_word(&mut self, first: u64, pages: u64) -> bool {
        match self.place(first, true) {
            Some((word, 1)) if *word == 0 => {
                *word = pages;
                true
            }
            _ => false,
        }
    }

    /// Words that are not empty, with the page of their first bit, in ascending order.
    pub(super) fn words(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let parts = (0u64..).zip(&self.parts).filter_map(|(index, part)| Some((index, part.as_ref()?)));
        parts.flat_map(|(index, part)| {
            let first = index.saturating_mul(PART_PAGES);
            (0u64..)
                .zip(part.iter())
                .filter(|(_, word)| **word != 0)
                .map(move |(at, word)| (first.saturating_add(at.saturating_mul(64)), *word))
        })
    }

    fn place(&mut self, page: u64, make: bool) -> Option<(&mut u64, u64)> {
        let part = self.parts.get_mut(usize::try_from(page.checked_div(PART_PAGES)?).ok()?)?;
        if part.is_none() && make {
            *part = Some(Box::new([0; WORDS]));
        }
        let inside = page.checked_rem(PART_PAGES)?;
        let word = part.as_mut()?.get_mut(usize::try_from(inside >> 6).ok()?)?;
        Some((word, 1 << (inside & 63)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const END: u64 = 3 * PART_PAGES + 5;

    proptest! {
        #[test]
        fn it_has_what_was_put_in_and_not_taken_out(
            steps in prop::collection::vec((any::<bool>(), prop_oneof![0..END, 0u64..130, END..=END + PART_PAGES]), 0..400)
        ) {
            let (mut pages, mut model) = (Pages::new(END), BTreeSet::new());
            for (put, page) in steps {
                // The last part is as large as the others.
                let fits = page < 4 * PART_PAGES;
                if put {
                    prop_assert_eq!(pages.insert(page), fits && model.insert(page));
                } else {
                    prop_assert_eq!(pages.remove(page), model.remove(&page));
                }
            }
            let found = pages.words().flat_map(|(first, word)| {
                (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            let mut copy = Pages::new(END);
            for (first, word) in pages.words() {
                prop_assert!(copy.insert_word(first, word) && !copy.insert_word(first, word));
            }
            prop_assert!(copy.words().eq(pages.words()));
        }
    }

    #[test]
    fn only_what_is_used_takes_room() {
        let mut pages = Pages::new(1 << 28);
        assert!(pages.insert((1 << 28) - 1));
        assert!(!pages.remove(7));
        assert_eq!(pages.parts.iter().flatten().count(), 1);
    }
}
