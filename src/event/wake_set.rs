//! Which participants were woken, without a lock.

use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// A set of small numbers that any thread may add to and one thread takes from.
pub(super) struct WakeSet {
    /// Bit `n` of word `m` stands for member `64 * m + n`.
    words: Box<[AtomicU64]>,
    /// Bit `n` of word `m`: something is in word `64 * m + n`.
    summary: Box<[AtomicU64]>,
}

const BITS: usize = u64::BITS as usize;

impl WakeSet {
    /// How many members it has room for.
    pub(super) const CAPACITY: usize = BITS * BITS * 4;

    pub(super) fn new() -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { words: zeros(Self::CAPACITY / BITS), summary: zeros(Self::CAPACITY / BITS / BITS) }
    }

    /// Adds a member; one past the capacity is left out.
    pub(super) fn add(&self, member: usize) {
        let Some(word) = self.words.get(member / BITS) else { return };
        word.fetch_or(1 << (member % BITS), Ordering::SeqCst);
        if let Some(summary) = self.summary.get(member / BITS / BITS) {
            summary.fetch_or(1 << (member / BITS % BITS), Ordering::SeqCst);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.summary.iter().all(|word| word.load(Ordering::SeqCst) == 0)
    }

    /// Takes all members out.
    pub(super) fn drain(&self, mut each: impl FnMut(usize)) {
        for (group, summary) in self.summary.iter().enumerate() {
            if summary.load(Ordering::SeqCst) == 0 {
                continue;
            }
            for index in ones(summary.swap(0, Ordering::SeqCst)) {
                let word = group.wrapping_mul(BITS) | index;
                let members = self.words.get(word).map_or(0, |word| word.swap(0, Ordering::SeqCst));
                ones(members).for_each(|member| each(word.wrapping_mul(BITS) | member));
            }
        }
    }
}

fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits.wrapping_sub(1);
        Some(lowest)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_member_that_was_added_comes_out_once() {
        let set = WakeSet::new();
        let added = [0, 1, 63, 64, 4095, 4096, WakeSet::CAPACITY - 1];
        added.into_iter().chain([64, WakeSet::CAPACITY, usize::MAX]).for_each(|member| set.add(member));
        assert!(!set.is_empty());
        let mut taken = Vec::new();
        set.drain(|member| taken.push(member));
        assert_eq!(taken, added);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_was_added_since(rounds in vec(vec(0..WakeSet::CAPACITY + 70, 0..40), 1..5)) {
            let set = WakeSet::new();
            for added in rounds {
                added.iter().for_each(|member| set.add(*member));
                let expected: BTreeSet<usize> = added.into_iter().filter(|member| *member < WakeSet::CAPACITY).collect();
                prop_assert_eq!(set.is_empty(), expected.is_empty());
                let mut taken = Vec::new();
                set.drain(|member| taken.push(member));
                prop_assert_eq!(taken, expected.into_iter().collect::<Vec<_>>());
                prop_assert!(set.is_empty());
            }
        }
    }
}
