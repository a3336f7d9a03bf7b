//! A file and those that it builds on, as one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::blocks::{Block, Region};
use super::read::{Saved, unreadable};
use super::{BLOCK, Identity, damaged, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, Place, Template, ram_file, seal_ram_file};

/// So many files may build on each other.
const LONGEST: usize = 64;
/// Zeroes that take less are not worth a mapping of their own.
const LEAST_GAP: u64 = 2 << 20;
/// The host gives a process 65,530 mappings unless it is told otherwise.
const MOST_MAPPINGS: usize = 4096;

/// What the RAM becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A copy in memory, whose checksums were compared.
    Copied,
    /// A mapping of the files themselves, of which nothing is read.
    Mapped,
}

/// A file with all that is known of its RAM: where each block lies.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) machine: Vec<u8>,
    pub(crate) identity: Identity,
    regions: Vec<Located>,
}

#[derive(Clone, Debug)]
struct Located {
    start: GuestAddress,
    len: u64,
    blocks: Vec<Option<Piece>>,
}

/// A block that is not zeroes.
#[derive(Clone, Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    checksum: u32,
}

impl Chain {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::open_at(path, LONGEST)
    }

    fn open_at(path: &Path, left: usize) -> Result<Self> {
        let saved = Saved::open(path)?;
        let base = match &saved.map.base {
            None => None,
            Some(_) if left == 0 => return Err(refused(format!("it builds on more than {LONGEST} files"))),
            Some((name, identity)) => {
                let about = |error: Error| error.about(&format!("it builds on {}", name.escape_default()));
                let base = Self::open_at(&path.with_file_name(name), left.saturating_sub(1)).map_err(about)?;
                if base.identity != *identity {
                    return Err(about(refused("that is another snapshot than the one it was saved on top of")));
                }
                Some(base)
            }
        };
        Self::locate(saved, base)
    }

    fn locate(saved: Saved, base: Option<Self>) -> Result<Self> {
        let Saved { file, machine, map, memory } = saved;
        let below = base.map(|base| base.regions);
        if below.as_ref().is_some_and(|below| !below.iter().map(Located::place).eq(map.regions.iter().map(place))) {
            return Err(damaged("its RAM is not where it is in the file that it builds on"));
        }
        if map.base.is_some() && below.is_none() {
            return Err(refused("it builds on another file, which is not there"));
        }
        let mut below = below.into_iter().flatten();
        let mut offset = memory;
        let locate = |region: Region| {
            let mut below = below.next().map(|below| below.blocks).unwrap_or_default().into_iter();
            let piece = |((_, len), block): ((u64, u64), Block)| {
                let old = below.next().flatten();
                match block {
                    Block::Zeroes => None,
                    Block::InBase => old,
                    Block::Here { checksum } => {
                        let piece = Piece { file: Arc::clone(&file), offset, checksum };
                        offset = offset.saturating_add(len);
                        Some(piece)
                    }
                }
            };
            let blocks = Region::places(region.len).zip(region.blocks).map(piece).collect();
            Located { start: region.start, len: region.len, blocks }
        };
        let regions = map.regions.into_iter().map(locate).collect();
        Ok(Self { machine, identity: map.identity, regions })
    }

    /// Takes the RAM. A copy takes as long as reading it does.
    pub(crate) fn memory(&self, taken: Taken) -> Result<Template> {
        let places = |region: &Located| {
            let places = match taken {
                Taken::Copied => region.copied()?,
                Taken::Mapped => region.mapped()?,
            };
            Ok((region.start, region.len, places))
        };
        self.regions.iter().map(places).collect::<Result<_>>().map(Template::of_places)
    }

    /// The first address and the length of each region.
    pub(crate) fn regions(&self) -> impl Iterator<Item = (GuestAddress, u64)> {
        self.regions.iter().map(Located::place)
    }
}

fn place(region: &Region) -> (GuestAddress, u64) {
    (region.start, region.len)
}

impl Located {
    fn place(&self) -> (GuestAddress, u64) {
        (self.start, self.len)
    }

    fn copied(&self) -> Result<Vec<Place>> {
        let no_room = |e| Error::new(ErrorKind::HostMemory, "the host has no memory for its RAM").with_source(e);
        let file = ram_file(self.len).map_err(no_room)?;
        let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        for ((offset, len), piece) in Region::places(self.len).zip(&self.blocks) {
            let Some(piece) = piece else { continue };
            let bytes = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len)).unwrap_or_default();
            piece.read(bytes, self.start.0.saturating_add(offset))?;
            file.write_all_at(bytes, offset).map_err(no_room)?;
        }
        seal_ram_file(&file).map_err(no_room)?;
        let file = Arc::new(file);
        let mut places = Vec::<Place>::new();
        let mut at = 0u64;
        for (len, stored) in self.runs(|one, other| one.is_some() == other.is_some()) {
            let keeps = stored.is_some() || len < LEAST_GAP;
            match places.last_mut() {
                Some((before, Some(_))) if keeps => *before = before.saturating_add(len),
                _ => places.push((len, keeps.then(|| (Arc::clone(&file), at)))),
            }
            at = at.saturating_add(len);
        }
        Ok(places)
    }

    fn mapped(&self) -> Result<Vec<Place>> {
        let runs = self.runs(|one, other| match (one, other) {
            (Some(one), Some(other)) => {
                Arc::ptr_eq(&one.file, &other.file) && one.offset.checked_add(BLOCK) == Some(other.offset)
            }
            (one, other) => one.is_none() && other.is_none(),
        });
        if runs.len() > MOST_MAPPINGS {
            let count = runs.len();
            let message = format!(
                "its RAM lies in {count} places, and {MOST_MAPPINGS} at most are mapped; reading it is allowed"
            );
            return Err(refused(message));
        }
        let place = |piece: &Piece| (Arc::clone(&piece.file), piece.offset);
        Ok(runs.into_iter().map(|(len, piece)| (len, piece.map(place))).collect())
    }

    /// Blocks in a row that `go_on` each other: their length, and the first of them.
    fn runs(&self, go_on: impl Fn(Option<&Piece>, Option<&Piece>) -> bool) -> Vec<(u64, Option<&Piece>)> {
        let (mut runs, mut before) = (Vec::<(u64, Option<&Piece>)>::new(), None);
        for ((_, len), piece) in Region::places(self.len).zip(&self.blocks) {
            let piece = piece.as_ref();
            match runs.last_mut() {
                Some((run, _)) if before.is_some_and(|before| go_on(before, piece)) => *run = run.saturating_add(len),
                _ => runs.push((len, piece)),
            }
            before = Some(piece);
        }
        runs
    }
}

impl Piece {
    /// Reads the block at guest address `gpa`.
    fn read(&self, bytes: &mut [u8], gpa: u64) -> Result<()> {
        self.file.read_exact_at(bytes, self.offset).map_err(unreadable)?;
        if crc32fast::hash(bytes) != self.checksum {
            return Err(damaged(format!("the checksum of the RAM at {gpa:#x} does not agree")));
        }
        Ok(())
    }
}
