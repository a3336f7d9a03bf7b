//! Reading a file: its header and what is small of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::blocks::{Block, Map, Region};
use super::header::{self, HEADER, Section, Sections};
use super::{damaged, refused};
use crate::error::Result;
use crate::sys::open_disk;

/// The most that a machine without its RAM takes: some KiB for each vCPU.
const MOST_MACHINE: u64 = 16 << 20;
/// That of a guest of the largest size.
const MOST_BLOCKS: u64 = 160 << 20;

/// A file, of which all but the blocks themselves is read and checked.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) file: Arc<File>,
    pub(super) machine: Vec<u8>,
    pub(super) map: Map,
    /// Where the first block lies.
    pub(super) memory: u64,
}

impl Saved {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open_disk(path, false, false).map_err(|e| refused("it cannot be opened").with_source(e))?;
        Self::read(file)
    }

    pub(super) fn read(file: File) -> Result<Self> {
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            return Err(refused("it is no regular file"));
        }
        let mut page = [0; HEADER];
        let whole = usize::try_from(about.len()).unwrap_or(usize::MAX).min(HEADER);
        file.read_exact_at(page.get_mut(..whole).unwrap_or_default(), 0).map_err(unreadable)?;
        let [machine, blocks, memory]: Sections = header::read(&page, about.len())?;
        let machine = section(&file, "machine", machine, MOST_MACHINE)?;
        let map = Map::read(&section(&file, "list of blocks", blocks, MOST_BLOCKS)?)?;
        if !memory.offset.is_multiple_of(4096) || map.stored() != memory.len {
            let (needed, has) = (map.stored(), memory.len);
            return Err(damaged(format!("its blocks take {needed} bytes, and there are {has}")));
        }
        Ok(Self { file: Arc::new(file), machine, map, memory: memory.offset })
    }
}

impl Map {
    /// How many bytes the blocks take that are in the file itself.
    fn stored(&self) -> u64 {
        let blocks = self.regions.iter().flat_map(|region| Region::places(region.len).zip(&region.blocks));
        blocks
            .filter(|(_, block)| matches!(block, Block::Here { .. }))
            .fold(0, |sum, ((_, len), _)| sum.saturating_add(len))
    }
}

fn section(file: &File, what: &str, section: Section, most: u64) -> Result<Vec<u8>> {
    if section.len > most {
        let len = section.len;
        return Err(damaged(format!("its {what} takes {len} bytes, allowed are {most}")));
    }
    let mut bytes = vec![0; usize::try_from(section.len).unwrap_or_default()];
    file.read_exact_at(&mut bytes, section.offset).map_err(unreadable)?;
    if crc32fast::hash(&bytes) != section.checksum {
        return Err(damaged(format!("the checksum of its {what} does not agree")));
    }
    Ok(bytes)
}

pub(super) fn unreadable(cause: io::Error) -> crate::Error {
    refused("it cannot be read").with_source(cause)
}
