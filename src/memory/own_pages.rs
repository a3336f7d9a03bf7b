//! Which pages of a mapping the kernel keeps, and which of them are its own, since the guest has changed them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::aligned::Mapping;
use crate::error::{Error, ErrorKind};

const PAGE: u64 = 4096;
/// What the kernel tells of a page (Documentation/admin-guide/mm/pagemap.rst).
const ENTRY: usize = size_of::<u64>();
const IS_EXCLUSIVE: u64 = 1 << 56;
const IS_FILE: u64 = 1 << 61;
const IS_SWAPPED: u64 = 1 << 62;
const IS_PRESENT: u64 = 1 << 63;
/// So many entries are read at once.
const AT_ONCE: usize = 8192;

/// Pages that are apart by so few bytes count as one range, though those between them are not among them.
const NEAR: u64 = 64 << 10;

/// What the kernel keeps of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing: it was not used.
    Nothing,
    /// One of the mapping's own, in memory or in swap space.
    Own,
    /// One of a file, in memory.
    OfFile,
    /// One of no file that others have mapped, too: that of zeroes, or one that the kernel has merged with others.
    Common,
}

/// Returns the ranges of bytes of a mapping that hold all pages of its own, in ascending order.
pub(super) fn own_pages(mapping: &Mapping) -> io::Result<Vec<Range<u64>>> {
    pages_that(mapping, |kept| matches!(kept, Kept::Own | Kept::Common))
}

/// Returns the ranges of bytes of a mapping that hold all pages of which `are` tells that they are wanted, in ascending order.
pub(super) fn pages_that(mapping: &Mapping, are: impl Fn(Kept) -> bool) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::<Range<u64>>::new();
    each_page(mapping, |index, kept| {
        if are(kept) {
            join(&mut found, index.saturating_mul(PAGE));
        }
    })?;
    Ok(found)
}

/// Tells of each page of a mapping, by its number, what the kernel keeps.
pub(super) fn each_page(mapping: &Mapping, mut tell: impl FnMut(u64, Kept)) -> io::Result<()> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut entries = vec![0u8; AT_ONCE.saturating_mul(ENTRY)];
    let (first, count) = (mapping.as_ptr() as u64 / PAGE, mapping.len() as u64 / PAGE);
    let mut page = 0u64;
    while page < count {
        let step = count.saturating_sub(page).min(AT_ONCE as u64);
        let bytes = usize::try_from(step).unwrap_or(AT_ONCE).saturating_mul(ENTRY);
        let entries = entries.get_mut(..bytes).unwrap_or_default();
        pagemap.read_exact_at(entries, first.saturating_add(page).saturating_mul(ENTRY as u64))?;
        for (index, entry) in (page..).zip(entries.chunks_exact(ENTRY)) {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            tell(index, kept(entry));
        }
        page = page.saturating_add(step);
    }
    Ok(())
}

/// For those whose question was about a whole guest.
pub(super) fn untold(cause: io::Error) -> Error {
    let message = "the kernel does not tell which pages a guest has (/proc/self/pagemap)";
    Error::new(ErrorKind::Host, message).with_source(cause)
}

fn kept(entry: u64) -> Kept {
    let is = |bit: u64| entry & bit != 0;
    match (is(IS_SWAPPED), is(IS_PRESENT), is(IS_FILE), is(IS_EXCLUSIVE)) {
        (true, ..) | (_, true, false, true) => Kept::Own,
        (_, true, false, false) => Kept::Common,
        (_, true, true, _) => Kept::OfFile,
        _ => Kept::Nothing,
    }
}

fn join(ranges: &mut Vec<Range<u64>>, at: u64) {
    let end = at.saturating_add(PAGE);
    match ranges.last_mut() {
        Some(last) if at.saturating_sub(last.end) < NEAR => last.end = end,
        _ => ranges.push(at..end),
    }
}
