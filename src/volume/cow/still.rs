//! A layer that nobody uses as a disk: read and written to, one call after the other.

use std::io;

use super::blocks::Blocks;
use super::header::Header;
use super::load::{read_map, write_both, write_pages};
use super::map::{Map, RunPlace, parts};
use super::space::Space;
use crate::error::Result;

/// So many changed pages are written at the latest.
const MOST_DIRTY: usize = 64;

pub(crate) struct Still {
    header: Header,
    map: Map,
    space: Space,
}

/// Where a part of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// In the base.
    Base,
    Zeroes,
    /// In this layer's file, from this byte of its data on.
    Own(u64),
}

impl Still {
    /// # Errors
    /// If the map cannot be read, or makes no sense.
    pub(crate) fn open(blocks: &mut impl Blocks, header: Header) -> Result<Self> {
        let (map, space) = read_map(blocks, &header)?;
        Ok(Self { header, map, space })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What comes first of `at..at + len`, and how long that is. All are whole blocks.
    pub(crate) fn first_part(&self, at: u64, len: u64) -> (u64, Part) {
        let (run, base) = (self.map.first_run(at, len), self.header.base_len());
        match run.place {
            RunPlace::Base if at >= base => (run.len, Part::Zeroes),
            RunPlace::Base => (run.len.min(base.saturating_sub(at)), Part::Base),
            RunPlace::Zeroes => (run.len, Part::Zeroes),
            RunPlace::Clusters(place) => (run.len, Part::Own(self.header.data_at().saturating_add(place))),
        }
    }

    /// Writes whole blocks. What was there before is lost in a crash only if it was in this layer: then each block is the old or the new one.
    pub(crate) fn write(&mut self, blocks: &mut impl Blocks, at: u64, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        for (index, ..) in parts(at, len) {
            if self.map.entry(index).cluster == 0 {
                let cluster = self.space.take(true).ok_or(io::ErrorKind::StorageFull)?;
                self.map.place(index, cluster);
            }
        }
        let mut done = 0;
        while done < len {
            let (from, left) = (at.saturating_add(done), len.saturating_sub(done));
            let run = self.map.first_written_run(from, left).ok_or(io::ErrorKind::InvalidInput)?;
            let RunPlace::Clusters(place) = run.place else { return Err(io::ErrorKind::InvalidInput.into()) };
            let piece = usize::try_from(done).ok().and_then(|done| bytes.get(done..));
            let piece = piece.and_then(|rest| rest.get(..usize::try_from(run.len).ok()?)).unwrap_or_default();
            blocks.write_at(self.header.data_at().saturating_add(place), piece)?;
            done = done.saturating_add(run.len);
        }
        self.map.begin_write(at, len);
        let empty = self.map.end_write(at, len, true);
        self.space.put_aside(empty);
        self.settle_many(blocks)
    }

    /// Makes whole blocks zeroes.
    pub(crate) fn zero(&mut self, blocks: &mut impl Blocks, at: u64, len: u64) -> io::Result<()> {
        let empty = self.map.zero(at, len);
        self.space.put_aside(empty);
        self.settle_many(blocks)
    }

    fn settle_many(&mut self, blocks: &mut impl Blocks) -> io::Result<()> {
        if self.map.dirty_pages() >= MOST_DIRTY { self.settle(blocks) } else { Ok(()) }
    }

    /// Makes what was written stable: the data, then the map.
    pub(crate) fn settle(&mut self, blocks: &mut impl Blocks) -> io::Result<()> {
        blocks.sync()?;
        let (pages, freed) = (self.map.take_dirty(), self.space.freed());
        for page in &pages {
            blocks.write_at(self.header.slot_at(page.index.into(), page.slot()), &*page.bytes)?;
        }
        if !pages.is_empty() {
            blocks.sync()?;
        }
        pages.iter().for_each(|page| self.map.is_stable(page));
        self.space.put_back(freed);
        Ok(())
    }

    /// From now on it has no base: what is in neither is zeroes. Neither copy of the header has the base's key any more.
    ///
    /// # Errors
    /// If it cannot be written: then it has its base, or it has none.
    pub(crate) fn leave_base(&mut self, blocks: &mut impl Blocks) -> Result<()> {
        let mut header = Header { base: None, ..self.header.clone() };
        write_both(blocks, &mut header)?;
        self.header = header;
        Ok(())
    }

    /// Makes the disk larger, to `capacity` bytes: a larger map is written behind all else, and the header then names it. What was not there is zeroes.
    ///
    /// # Errors
    /// If it cannot be written: then it is as it was, or it is larger.
    pub(crate) fn grow(&mut self, blocks: &mut impl Blocks, capacity: u64) -> Result<()> {
        let mut header = self.header.grown(capacity);
        header.check()?;
        let written = write_pages(blocks, &header, 0, |page| self.map.entries_of(page));
        written.inspect_err(|_| blocks.cut(self.header.file_len()))?;
        write_both(blocks, &mut header)?;
        self.header = header;
        (self.map, self.space) = read_map(blocks, &self.header)?;
        Ok(())
    }

    /// How long the file has to be for a disk of `capacity` bytes.
    pub(crate) fn file_len_for(&self, capacity: u64) -> u64 {
        self.header.grown(capacity).file_len()
    }
}

#[cfg(test)]
#[path = "still_test.rs"]
mod tests;
