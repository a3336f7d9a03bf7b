//! What is saved of a balloon: numbers in little-endian order, and which pages are in it.

use super::pages::Pages;
use super::{PAGE, QUEUES};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::DeviceState;

const VERSION: u32 = 1;
/// Bytes of all numbers, before the pages.
const HEAD: usize = 4 * (3 + QUEUES);
/// Bytes of the number of a page and of a bit for each of the 64 from there on.
const WORD: usize = 16;
const WORD_PAGES: u64 = 64;

/// The numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// In pages.
    pub(super) target: u32,
    pub(super) actual: u32,
    /// How far the chain has come that each queue was put back.
    pub(super) done: [u32; QUEUES],
    /// The statistics that the guest offers are not new.
    pub(super) seen: bool,
}

impl Saved {
    pub(super) fn write(&self, pages: &Pages) -> DeviceState {
        let mut bytes = Vec::new();
        for number in [self.target, self.actual, self.seen.into()].into_iter().chain(self.done) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (first, word) in pages.words() {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        DeviceState::new(VERSION, bytes)
    }

    /// # Errors
    /// [`ErrorKind::InvalidState`] if it is not one that `write` made for such memory.
    pub(super) fn read(state: &DeviceState, memory: &GuestMemory, mut pages: Pages) -> Result<(Self, Pages)> {
        let refused = |message: String| Error::new(ErrorKind::InvalidState, message);
        if state.version != VERSION {
            return Err(refused(format!("a balloon's state has version {}, allowed is {VERSION}", state.version)));
        }
        let len = state.bytes.len();
        let parts = state.bytes.split_at_checked(HEAD).filter(|(_, words)| words.len().is_multiple_of(WORD));
        let (head, words) = parts.ok_or_else(|| {
            refused(format!("a balloon's state has {len} bytes, allowed are {HEAD} and a multiple of {WORD} more"))
        })?;
        let mut numbers = head.chunks_exact(4).map(|number| number.try_into().map_or(0, u32::from_le_bytes));
        let mut next = || numbers.next().unwrap_or_default();
        let saved = Self { target: next(), actual: next(), seen: next() != 0, done: [(); QUEUES].map(|()| next()) };
        let most = memory.size().checked_div(PAGE).unwrap_or_default();
        if u64::from(saved.target) > most {
            return Err(refused(format!(
                "a balloon's state has a target of {} pages, allowed are 0 to {most}",
                saved.target
            )));
        }
        for word in words.chunks_exact(WORD) {
            let (first, bits) = word.split_at_checked(8).unwrap_or_default();
            let [first, bits] = [first, bits].map(|number| number.try_into().map_or(0, u64::from_le_bytes));
            if !are_ram(memory, first, bits) || !pages.insert_word(first, bits) {
                return Err(refused(format!(
                    "a balloon's state has pages {bits:#x} from page {first:#x} on, which are no RAM or are there twice"
                )));
            }
        }
        Ok((saved, pages))
    }
}

fn are_ram(memory: &GuestMemory, first: u64, bits: u64) -> bool {
    let is_ram = |page: u64, count: u64| {
        page.checked_mul(PAGE).is_some_and(|gpa| memory.contains(GuestAddress(gpa), count.saturating_mul(PAGE)))
    };
    let has = |bit: &u64| bits >> bit & 1 == 1;
    is_ram(first, WORD_PAGES)
        || (0..WORD_PAGES).filter(has).all(|bit| first.checked_add(bit).is_some_and(|page| is_ram(page, 1)))
}
