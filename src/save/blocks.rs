//! Where each block of the RAM lies, and its checksum.

use super::{BLOCK, Identity, damaged};
use crate::error::Result;
use crate::memory::GuestAddress;

/// The longest name of a file that others build on; Linux has no longer ones.
const LONGEST_NAME: usize = 255;
/// No machine has so many, and a file that says so is made up.
const MOST_REGIONS: u32 = 16;
const ENTRY: usize = 8;

/// All that is known of the RAM in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) identity: Identity,
    /// The file that this one builds on, in the same folder, and what tells that from others.
    pub(super) base: Option<(String, Identity)>,
    pub(super) regions: Vec<Region>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: GuestAddress,
    pub(super) len: u64,
    pub(super) blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Zeroes,
    /// In this file, behind the blocks before it.
    Here {
        checksum: u32,
    },
    /// Where it is in the file that this one builds on.
    InBase,
}

impl Region {
    /// The offset and the length of each block.
    pub(super) fn places(len: u64) -> impl Iterator<Item = (u64, u64)> {
        let count = len.div_ceil(BLOCK);
        (0..count).map(move |index| {
            let offset = index.saturating_mul(BLOCK);
            (offset, len.saturating_sub(offset).min(BLOCK))
        })
    }
}

impl Map {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = self.identity.to_vec();
        let (name, identity) = self.base.as_ref().map_or(("", [0; 16]), |(name, identity)| (name, *identity));
        bytes.extend(identity);
        bytes.extend(number(name.len()));
        bytes.extend(name.as_bytes());
        bytes.extend(number(self.regions.len()));
        for region in &self.regions {
            bytes.extend(region.start.0.to_le_bytes());
            bytes.extend(region.len.to_le_bytes());
            for block in &region.blocks {
                let (kind, checksum) = match block {
                    Block::Zeroes => (0u32, 0u32),
                    Block::Here { checksum } => (1, *checksum),
                    Block::InBase => (2, 0),
                };
                bytes.extend(kind.to_le_bytes());
                bytes.extend(checksum.to_le_bytes());
            }
        }
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut rest = Rest(bytes);
        let (identity, base_identity) = (rest.array()?, rest.array()?);
        let name = rest.number()?;
        let name = rest.take(usize::try_from(name).unwrap_or(usize::MAX))?;
        let base = if name.is_empty() { None } else { Some((plain_name(name)?, base_identity)) };
        let count = rest.number()?;
        if count == 0 || count > MOST_REGIONS {
            return Err(damaged(format!("its RAM has {count} regions, allowed are 1 to {MOST_REGIONS}")));
        }
        let regions = (0..count).map(|_| rest.region(base.is_some())).collect::<Result<_>>()?;
        if !rest.0.is_empty() {
            return Err(damaged("there is more behind its last block"));
        }
        Ok(Self { identity, base, regions })
    }
}

/// What was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("the list of its blocks is cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| damaged("the list of its blocks is cut"))
    }

    fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn region(&mut self, has_base: bool) -> Result<Region> {
        let (start, len) = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?));
        let is_whole = start.is_multiple_of(4096) && len.is_multiple_of(4096) && len > 0;
        if !is_whole || start.checked_add(len).is_none() {
            return Err(damaged(format!("its RAM has a region of {len:#x} bytes at {start:#x}")));
        }
        let bytes = usize::try_from(len.div_ceil(BLOCK)).ok().and_then(|count| count.checked_mul(ENTRY));
        let entries = self.take(bytes.unwrap_or(usize::MAX))?;
        let block = |entry: &[u8; ENTRY]| {
            let [a, b, c, d, e, f, g, h] = *entry;
            match (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])) {
                (0, 0) => Ok(Block::Zeroes),
                (1, checksum) => Ok(Block::Here { checksum }),
                (2, 0) if has_base => Ok(Block::InBase),
                (kind, _) => Err(damaged(format!("it has a block of the unknown kind {kind}"))),
            }
        };
        let blocks = entries.as_chunks().0.iter().map(block).collect::<Result<_>>()?;
        Ok(Region { start: GuestAddress(start), len, blocks })
    }
}

/// A name that leads to no other folder.
pub(super) fn plain_name(name: &[u8]) -> Result<String> {
    let text =
        std::str::from_utf8(name).ok().filter(|text| !text.contains(['/', '\0']) && !matches!(*text, "." | ".."));
    match text {
        Some(text) if (1..=LONGEST_NAME).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(damaged("the name of the file that it builds on is none")),
    }
}

fn number(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}
