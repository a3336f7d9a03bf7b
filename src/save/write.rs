//! Writing a file: beside its place, and put there once it is whole and on storage.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::blocks::{Block, Map, Region, plain_name};
use super::header::{self, HEADER, Section};
use super::pace::Pace;
use super::part::Part;
use super::{BLOCK, Identity, Seal, refused};
use crate::error::Result;
use crate::memory::{GuestAddress, Template, is_zero};

const PAGE: usize = 4096;

/// What a file builds on, so that it holds only what lies elsewhere.
pub(crate) struct Base<'a> {
    /// What the other file is called, in the same folder.
    pub(crate) name: &'a [u8],
    pub(crate) identity: Identity,
    pub(crate) memory: &'a Template,
}

/// A range of the RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut {
    pub(crate) start: GuestAddress,
    pub(crate) len: u64,
}

impl LeftOut {
    /// Which of the `len` bytes from `start` on it covers.
    fn part_of(self, start: u64, len: u64) -> Option<Range<usize>> {
        let from = self.start.0.max(start);
        let to = self.start.0.saturating_add(self.len).min(start.saturating_add(len));
        let within = |address: u64| usize::try_from(address.saturating_sub(start)).unwrap_or(usize::MAX);
        (from < to).then(|| within(from)..within(to))
    }
}

/// What a file is to hold.
pub(crate) struct Draft<'a> {
    pub(crate) identity: Identity,
    /// All but the RAM.
    pub(crate) machine: &'a [u8],
    pub(crate) memory: &'a Template,
    pub(crate) base: Option<Base<'a>>,
    /// What is not to be in the file; zeroes take its place.
    pub(crate) left_out: &'a [LeftOut],
    /// Whether it is on storage before it takes its place.
    pub(crate) sync: bool,
    /// What hides the RAM from who reads the file.
    pub(crate) seal: Option<&'a dyn Seal>,
}

impl Draft<'_> {
    /// Writes the file. A file of that name is replaced at the end, at once. After an error, nothing is left.
    pub(crate) fn write(&self, path: &Path, pace: &mut Pace<'_>) -> Result<()> {
        let base = self.base.as_ref().map(|base| Ok((plain_name(base.name)?, base.identity))).transpose()?;
        let failed = |e: io::Error| refused("it cannot be written").with_source(e);
        let part = Part::new(path, self.sync)?;
        self.fill(&part.file, base, pace).map_err(failed)?;
        part.put_in_place(path).map_err(failed)
    }

    /// A list in which each block is zeroes.
    pub(super) fn empty_map(&self, base: Option<(String, Identity)>) -> Map {
        let empty = |(start, len): (GuestAddress, u64)| {
            let count = usize::try_from(len.div_ceil(BLOCK)).unwrap_or(usize::MAX);
            Region { start, len, blocks: vec![Block::Zeroes; count] }
        };
        Map { identity: self.identity, base, regions: self.memory.regions().map(empty).collect() }
    }

    fn fill(&self, file: &File, base: Option<(String, Identity)>, pace: &mut Pace<'_>) -> io::Result<()> {
        let mut map = self.empty_map(base);
        let machine =
            Section { offset: HEADER as u64, len: self.machine.len() as u64, checksum: crc32fast::hash(self.machine) };
        let mut blocks = Section { offset: end(&machine), len: map.write().len() as u64, checksum: 0 };
        let mut memory = Section { offset: end(&blocks), len: 0, checksum: 0 };
        self.write_blocks(file, &mut map, &mut memory, pace)?;
        let list = map.write();
        blocks.checksum = crc32fast::hash(&list);
        file.write_all_at(self.machine, machine.offset)?;
        file.write_all_at(&list, blocks.offset)?;
        file.write_all_at(&header::write(&[machine, blocks, memory]), 0)?;
        // The last pages may be zeroes, which are not written.
        file.set_len(end(&memory))
    }

    pub(super) fn write_blocks(
        &self,
        file: &File,
        map: &mut Map,
        memory: &mut Section,
        pace: &mut Pace<'_>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        for (index, region) in map.regions.iter_mut().enumerate() {
            for ((offset, len), block) in Region::places(region.len).zip(&mut region.blocks) {
                let start = region.start.0.saturating_add(offset);
                let mut left_out = self.left_out.iter().filter_map(|range| range.part_of(start, len)).peekable();
                // What is left out may lie in the base.
                let base = self.base.as_ref().filter(|_| left_out.peek().is_none()).map(|base| base.memory);
                if base.is_some_and(|base| self.memory.lies_where(base, index, offset, len)) {
                    *block = Block::InBase;
                    continue;
                }
                let bytes = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len)).unwrap_or_default();
                if !self.memory.read(index, offset, bytes)? {
                    continue;
                }
                left_out.for_each(|range| bytes.get_mut(range).unwrap_or_default().fill(0));
                if is_zero(bytes) {
                    continue;
                }
                *block = Block::Here { checksum: crc32fast::hash(bytes) };
                if let Some(seal) = self.seal {
                    seal.hide(end(memory), bytes);
                }
                write_pages(file, bytes, end(memory))?;
                memory.len = memory.len.saturating_add(len);
                pace.keep(len)?;
            }
        }
        Ok(())
    }
}

/// Writes pages, but for those of zeroes, which are left out of the file.
pub(super) fn write_pages(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = 0usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let wanted = is_zero(rest.get(..PAGE).unwrap_or(rest));
        let same = rest.chunks(PAGE).take_while(|page| is_zero(page) == wanted).count();
        let len = same.saturating_mul(PAGE).min(rest.len());
        if !wanted {
            let at = offset.saturating_add(at as u64);
            file.write_all_at(rest.get(..len).unwrap_or_default(), at)?;
        }
        at = at.saturating_add(len);
    }
    Ok(())
}

/// Where the next section begins: on a page of its own.
fn end(section: &Section) -> u64 {
    section.offset.saturating_add(section.len).next_multiple_of(PAGE as u64)
}
