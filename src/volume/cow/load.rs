//! A layer's header and map, read from its file and written into a new one.

use std::io;
use std::ops::Range;

use super::blocks::Blocks;
use super::entry::Entry;
use super::header::{BaseRef, Header};
use super::layer::Layer;
use super::map::{Map, MapPage};
use super::page::{self, PAGE, Place};
use super::place::{COPIES, Place as Parts};
use super::space::Space;
use crate::block::DiskBackend;
use crate::error::{Error, Result};
use crate::sys::LockedBytes;
use crate::volume::{no_secret_memory, refused};

/// Pages that are read or written at once.
const AT_ONCE: usize = 64;

/// Makes an empty layer: all is what the base has. It is stable when this returns.
pub(crate) fn create(blocks: &mut impl Blocks, header: &Header) -> Result<()> {
    write_pages(blocks, header, 0, |_| &[])?;
    write_header(blocks, header)
}

/// Makes a layer's file one of `capacity` bytes, while the layer is used or not: its map goes on behind all that the file has room for, and
/// then its header says so. What the layer writes meanwhile stays right, since nothing that was there has another place. `header` is that of the file,
/// and becomes the new one. All of it is stable when this returns.
///
/// # Errors
/// If it cannot be written: then the file is as it was, or as it is to be.
pub(crate) fn lengthen(blocks: &mut impl Blocks, header: &mut Header, longer: Header) -> Result<()> {
    // What was written in vain would fill a disk for want of whose space that may have been.
    write_pages(blocks, &longer, header.pages(), |_| &[]).inspect_err(|_| blocks.cut(header.file_len()))?;
    *header = longer;
    // Also if nothing is added: who did that the last time may not know that it is stable.
    write_both(blocks, header)
}

/// Writes the pages of a map from one on, with their entries. They are stable when this returns.
pub(super) fn write_pages<'a>(
    blocks: &mut impl Blocks,
    header: &Header,
    from: u64,
    entries: impl Fn(u64) -> &'a [Entry],
) -> Result<()> {
    let unwritten = |e: io::Error| refused("it cannot be written").with_source(e);
    let mut many = Vec::with_capacity(2 * AT_ONCE * PAGE);
    for some in runs(header, from) {
        many.clear();
        for index in some.clone() {
            let place =
                Place { of: first_half(header), index: u32::try_from(index).unwrap_or(u32::MAX), generation: 0 };
            many.extend(page::encode(place, entries(index)));
            // The other slot is written when the page changes.
            many.extend([0; PAGE]);
        }
        blocks.write_at(header.slot_at(some.start, 0), &many).map_err(unwritten)?;
    }
    // The header last: without it, nobody takes the rest for a layer.
    blocks.sync().map_err(unwritten)
}

/// The pages of a map from one on, as runs that lie behind each other in the file, of as many as are read or written at once.
fn runs(header: &Header, from: u64) -> impl Iterator<Item = Range<u64>> {
    let parts = header.map_parts().map(move |part| part.start.max(from)..part.end);
    parts.flat_map(|part| {
        let end = part.end;
        part.step_by(AT_ONCE).map(move |first| first..first.saturating_add(AT_ONCE as u64).min(end))
    })
}

/// Writes the header into the copy of its sequence number; the other one stays as it is.
pub(super) fn write_header(blocks: &mut impl Blocks, header: &Header) -> Result<()> {
    let page = header.encode()?;
    let written = blocks.write_at(copy_at(header.sequence % COPIES), &page).and_then(|()| blocks.sync());
    written.map_err(|e| refused("the header of the layer cannot be written").with_source(e))
}

/// Writes both copies of the header, with later sequence numbers, each stable before the next one.
pub(super) fn write_both(blocks: &mut impl Blocks, header: &mut Header) -> Result<()> {
    for _ in 0..COPIES {
        header.sequence = header.sequence.saturating_add(1);
        write_header(blocks, header)?;
    }
    Ok(())
}

/// Reads the header: the newer one of its copies that are whole.
pub(crate) fn read_header(blocks: &mut impl Blocks) -> Result<Header> {
    let mut found: Option<Header> = None;
    let mut wrong: Option<Error> = None;
    for copy in 0..COPIES {
        let mut page = LockedBytes::zeroed(PAGE).map_err(no_secret_memory)?;
        let read = blocks.read_at(copy_at(copy), &mut page);
        read.map_err(|e| refused("the header of the layer cannot be read").with_source(e))?;
        match Header::decode(&page) {
            Ok(header) if found.as_ref().is_none_or(|other| other.sequence < header.sequence) => found = Some(header),
            Ok(_) => {}
            Err(e) => wrong = Some(wrong.filter(|_| copy == 0).unwrap_or(e)),
        }
    }
    found.ok_or_else(|| wrong.unwrap_or_else(|| refused("it is no layer over another volume")))
}

/// Reads the map.
///
/// # Errors
/// If neither slot of a page is whole, or the map makes no sense.
pub(super) fn read_map(blocks: &mut impl Blocks, header: &Header) -> Result<(Map, Space)> {
    let (mut pages, mut clusters) = (Vec::new(), header.clusters());
    let mut many = vec![0; 2 * AT_ONCE * PAGE];
    for some in runs(header, 0) {
        let count = usize::try_from(some.end.saturating_sub(some.start)).unwrap_or_default();
        let room = many.get_mut(..count.saturating_mul(2 * PAGE)).unwrap_or_default();
        blocks
            .read_at(header.slot_at(some.start, 0), room)
            .map_err(|e| refused("the map cannot be read").with_source(e))?;
        let (slots, _) = room.as_chunks::<PAGE>();
        for (index, pair) in some.zip(slots.chunks_exact(2)) {
            let (generation, mut entries) = newer(pair, first_half(header), index)?;
            // Behind the disk's end is nothing.
            entries.truncate(usize::try_from(clusters).unwrap_or(usize::MAX));
            clusters = clusters.saturating_sub(entries.len() as u64);
            pages.push(MapPage::new(generation, &entries));
        }
    }
    let map = Map::new(first_half(header), pages);
    let space = Space::of(map.entries(), header.room(), header.taken())?;
    Ok((map, space))
}

/// The newer one of a page's two slots. The slot is that of its generation.
fn newer(pair: &[[u8; PAGE]], of: u64, index: u64) -> Result<(u64, Vec<Entry>)> {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let found =
        (0..).zip(pair).filter_map(|(slot, page)| page::decode(page, of, number).filter(|(of, _)| of % 2 == slot));
    let newest = found.max_by_key(|(generation, _)| *generation);
    newest.ok_or_else(|| refused(format!("page {index} of the map is damaged, in both of its places")))
}

/// The layer of a file, over its base.
pub(crate) fn open<T: DiskBackend, B: DiskBackend>(
    blocks: &mut impl Blocks,
    header: Header,
    top: T,
    base: B,
) -> Result<Layer<T, B>> {
    let (map, space) = read_map(blocks, &header)?;
    Ok(Layer::new(top, base, header, map, space))
}

/// A header for a new layer.
pub(crate) fn new_header(identity: [u8; 16], capacity: u64, base: BaseRef) -> Header {
    Header { identity, capacity, base: Some(base), place: Parts::of(capacity), sequence: 0 }
}

fn copy_at(copy: u64) -> u64 {
    copy.saturating_mul(PAGE as u64)
}

fn first_half(header: &Header) -> u64 {
    header.identity.first_chunk().map_or(0, |half| u64::from_le_bytes(*half))
}
