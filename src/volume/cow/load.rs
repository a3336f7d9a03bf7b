//! A layer's header and map, read from its file and written into a new one.

use std::io;

use super::blocks::Blocks;
use super::entry::Entry;
use super::header::{BaseRef, COPIES, Header, Place as Parts};
use super::layer::Layer;
use super::map::Map;
use super::page::{self, ENTRIES, PAGE, Place};
use super::space::Space;
use crate::block::DiskBackend;
use crate::error::{Error, Result};
use crate::sys::LockedBytes;
use crate::volume::{no_secret_memory, refused};

/// Pages that are read or written at once.
const AT_ONCE: usize = 64;

/// Makes an empty layer: all is what the base has. It is stable when this returns.
pub(crate) fn create(blocks: &mut impl Blocks, header: &Header) -> Result<()> {
    write_map(blocks, header, &[])?;
    write_header(blocks, header)
}

/// Writes all pages of a map, with these entries and empty ones behind them. It is stable when this returns.
pub(super) fn write_map(blocks: &mut impl Blocks, header: &Header, entries: &[Entry]) -> Result<()> {
    let unwritten = |e: io::Error| refused("it cannot be written").with_source(e);
    let mut many = Vec::with_capacity(2 * AT_ONCE * PAGE);
    let mut left = entries.chunks(ENTRIES);
    let pages: Vec<u64> = (0..header.pages()).collect();
    for some in pages.chunks(AT_ONCE) {
        many.clear();
        for index in some {
            let place =
                Place { of: first_half(header), index: u32::try_from(*index).unwrap_or(u32::MAX), generation: 0 };
            many.extend(page::encode(place, left.next().unwrap_or_default()));
            // The other slot is written when the page changes.
            many.extend([0; PAGE]);
        }
        let at = header.slot_at(some.first().copied().unwrap_or_default(), 0);
        blocks.write_at(at, &many).map_err(unwritten)?;
    }
    // The header last: without it, nobody takes the rest for a layer.
    blocks.sync().map_err(unwritten)
}

/// Writes the header into the copy of its sequence number; the other one stays as it is.
pub(super) fn write_header(blocks: &mut impl Blocks, header: &Header) -> Result<()> {
    let page = header.encode()?;
    let written = blocks.write_at(copy_at(header.sequence % COPIES), &page).and_then(|()| blocks.sync());
    written.map_err(|e| refused("the header of the layer cannot be written").with_source(e))
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
    let count = usize::try_from(header.clusters()).map_err(|_| refused("the map is too large"))?;
    let (mut entries, mut generations) = (Vec::<Entry>::with_capacity(count), Vec::new());
    let mut many = vec![0; 2 * AT_ONCE * PAGE];
    let pages: Vec<u64> = (0..header.pages()).collect();
    for some in pages.chunks(AT_ONCE) {
        let room = many.get_mut(..some.len().saturating_mul(2 * PAGE)).unwrap_or_default();
        let at = header.slot_at(some.first().copied().unwrap_or_default(), 0);
        blocks.read_at(at, room).map_err(|e| refused("the map cannot be read").with_source(e))?;
        let (slots, _) = room.as_chunks::<PAGE>();
        for (index, pair) in some.iter().zip(slots.chunks_exact(2)) {
            let (generation, page) = newer(pair, first_half(header), *index)?;
            entries.extend(page.into_iter().take(count.saturating_sub(entries.len()).min(ENTRIES)));
            generations.push(generation);
        }
    }
    let space = Space::of(&entries, header.room(), header.taken())?;
    Ok((Map::new(first_half(header), entries, generations), space))
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
