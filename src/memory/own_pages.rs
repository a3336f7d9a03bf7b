//! Which pages of a private mapping are its own, since the guest has changed them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::aligned::Mapping;

const PAGE: u64 = 4096;
/// What the kernel tells of a page (Documentation/admin-guide/mm/pagemap.rst).
const ENTRY: usize = size_of::<u64>();
const IS_FILE: u64 = 1 << 61;
const IS_SWAPPED: u64 = 1 << 62;
const IS_PRESENT: u64 = 1 << 63;
/// So many entries are read at once.
const AT_ONCE: usize = 8192;

/// Pages that are apart by so few bytes count as one range, though those between them are not changed.
const NEAR: u64 = 64 << 10;

/// Returns the ranges of bytes of a mapping that hold all pages of its own, in ascending order.
pub(super) fn own_pages(mapping: &Mapping) -> io::Result<Vec<Range<u64>>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut entries = vec![0u8; AT_ONCE.saturating_mul(ENTRY)];
    let (first, count) = (mapping.as_ptr() as u64 / PAGE, mapping.len() as u64 / PAGE);
    let (mut own, mut page) = (Vec::<Range<u64>>::new(), 0u64);
    while page < count {
        let step = count.saturating_sub(page).min(AT_ONCE as u64);
        let bytes = usize::try_from(step).unwrap_or(AT_ONCE).saturating_mul(ENTRY);
        let entries = entries.get_mut(..bytes).unwrap_or_default();
        pagemap.read_exact_at(entries, first.saturating_add(page).saturating_mul(ENTRY as u64))?;
        for (index, entry) in (page..).zip(entries.chunks_exact(ENTRY)) {
            let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
            if entry & IS_SWAPPED != 0 || entry & (IS_PRESENT | IS_FILE) == IS_PRESENT {
                join(&mut own, index.saturating_mul(PAGE));
            }
        }
        page = page.saturating_add(step);
    }
    Ok(own)
}

fn join(ranges: &mut Vec<Range<u64>>, at: u64) {
    let end = at.saturating_add(PAGE);
    match ranges.last_mut() {
        Some(last) if at.saturating_sub(last.end) < NEAR => last.end = end,
        _ => ranges.push(at..end),
    }
}
