//! A file and those that it builds on, as one.

use std::fs::File;
use std::iter;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::blocks::{Block, Map, Region};
use super::read::{Saved, unreadable};
use super::write::write_pages;
use super::{BLOCK, Identity, Seal, damaged, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, Place, Template, ram_file, seal_ram_file};

/// So many files make a snapshot at most: the one that is loaded, and those that it builds on.
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
    /// The file itself, the one that it builds on, and so on.
    files: Vec<Arc<File>>,
    regions: Vec<Located>,
    /// What the RAM is hidden by.
    seal: Option<Box<dyn Seal>>,
}

#[derive(Clone, Debug)]
struct Located {
    start: GuestAddress,
    len: u64,
    blocks: Vec<Lies>,
}

/// Where a block lies. Small: a guest of 1 TiB has 16 million of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lies {
    /// In a file that was not looked at yet.
    Below,
    /// It is zeroes.
    Nowhere,
    In {
        file: u8,
        checksum: u32,
        offset: u64,
    },
}

impl Chain {
    /// Looks at a file, and at those that it builds on, one after the other: what is kept of them does not grow with their number.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let saved = Saved::open(path)?;
        let mut chain = Self::of_nothing(saved.machine, &saved.map);
        let mut base = chain.lay_under(saved.file, saved.map, saved.memory)?;
        while let Some((name, identity)) = base {
            if chain.files.len() >= LONGEST {
                return Err(refused(format!("it builds on more than {} files", LONGEST.saturating_sub(1))));
            }
            let saved = Saved::open(&path.with_file_name(&name)).and_then(|saved| {
                let is_it = saved.map.identity == identity;
                let another = || refused("that is another snapshot than the one it was saved on top of");
                if is_it { Ok(saved) } else { Err(another()) }
            });
            let about = |error: Error| error.about(&format!("it builds on {}", name.escape_default()));
            let saved = saved.map_err(about)?;
            base = chain.lay_under(saved.file, saved.map, saved.memory)?;
        }
        Ok(chain)
    }

    /// RAM alone, in a file from its first byte on, hidden by a seal.
    #[cfg(feature = "volume")]
    pub(super) fn sealed(file: File, map: Map, seal: Box<dyn Seal>) -> Result<Self> {
        let mut chain = Self { seal: Some(seal), ..Self::of_nothing(Vec::new(), &map) };
        chain.lay_under(Arc::new(file), map, 0)?;
        Ok(chain)
    }

    fn of_nothing(machine: Vec<u8>, map: &Map) -> Self {
        let unknown = |region: &Region| {
            let (start, len) = place(region);
            Located { start, len, blocks: vec![Lies::Below; region.blocks.len()] }
        };
        let regions = map.regions.iter().map(unknown).collect();
        Self { machine, identity: map.identity, files: Vec::new(), regions, seal: None }
    }

    /// Finds what was not found yet in a file further down. Gives the one that this builds on.
    fn lay_under(&mut self, file: Arc<File>, map: Map, memory: u64) -> Result<Option<(String, Identity)>> {
        if !self.regions().eq(map.regions.iter().map(place)) {
            return Err(damaged("its RAM is not where it is in the file that it builds on"));
        }
        let number = u8::try_from(self.files.len()).map_err(|_| damaged("it builds on too many files"))?;
        self.files.push(file);
        let mut offset = memory;
        let blocks = map.regions.iter().flat_map(|region| Region::places(region.len).zip(&region.blocks));
        for (lies, ((_, len), block)) in self.regions.iter_mut().flat_map(|region| &mut region.blocks).zip(blocks) {
            let found = match block {
                Block::Zeroes => Lies::Nowhere,
                Block::InBase => Lies::Below,
                Block::Here { checksum } => {
                    let here = Lies::In { file: number, checksum: *checksum, offset };
                    offset = offset.saturating_add(len);
                    here
                }
            };
            if *lies == Lies::Below {
                *lies = found;
            }
        }
        Ok(map.base)
    }

    /// Refuses to have another file build on this one if it could not be read then: because there are too many, or because it takes the
    /// place of one of them.
    pub(crate) fn check_below(&self, path: &Path) -> Result<()> {
        if self.files.len() >= LONGEST {
            let message = format!("{LONGEST} files build on each other already, allowed are {LONGEST}; save it whole");
            return Err(refused(message));
        }
        let Ok(replaced) = std::fs::metadata(path) else { return Ok(()) };
        for file in &self.files {
            let file = file.metadata().map_err(unreadable)?;
            if (file.dev(), file.ino()) == (replaced.dev(), replaced.ino()) {
                return Err(refused("it would take the place of a file that it builds on; allowed is another name"));
            }
        }
        Ok(())
    }

    /// Takes the RAM. A copy takes as long as reading it does.
    pub(crate) fn memory(&self, taken: Taken) -> Result<Template> {
        let places = |region: &Located| {
            let places = match taken {
                Taken::Copied => region.copied(&self.files, self.seal.as_deref())?,
                Taken::Mapped => region.mapped(&self.files)?,
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

    fn copied(&self, files: &[Arc<File>], seal: Option<&dyn Seal>) -> Result<Vec<Place>> {
        let no_room = |e| Error::new(ErrorKind::HostMemory, "the host has no memory for its RAM").with_source(e);
        let file = ram_file(self.len).map_err(no_room)?;
        let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or_default()];
        for ((at, len), lies) in Region::places(self.len).zip(&self.blocks) {
            let Lies::In { file: number, checksum, offset } = *lies else { continue };
            let Some(saved) = files.get(usize::from(number)) else { continue };
            let bytes = usize::try_from(len).ok().and_then(|len| buffer.get_mut(..len)).unwrap_or_default();
            saved.read_exact_at(bytes, offset).map_err(unreadable)?;
            if let Some(seal) = seal {
                seal.show(offset, bytes);
            }
            if crc32fast::hash(bytes) != checksum {
                let gpa = self.start.0.saturating_add(at);
                return Err(damaged(format!("the checksum of the RAM at {gpa:#x} does not agree")));
            }
            write_pages(&file, bytes, at).map_err(no_room)?;
        }
        seal_ram_file(&file).map_err(no_room)?;
        let file = Arc::new(file);
        let mut places = Vec::<Place>::new();
        let mut at = 0u64;
        for (len, lies) in self.runs(|one, other| (one == Lies::Nowhere) == (other == Lies::Nowhere)) {
            let keeps = lies != Lies::Nowhere || len < LEAST_GAP;
            match places.last_mut() {
                Some((before, Some(_))) if keeps => *before = before.saturating_add(len),
                _ => places.push((len, keeps.then(|| (Arc::clone(&file), at)))),
            }
            at = at.saturating_add(len);
        }
        Ok(places)
    }

    fn mapped(&self, files: &[Arc<File>]) -> Result<Vec<Place>> {
        let runs = self.runs(|one, other| match (one, other) {
            (Lies::In { file, offset, .. }, Lies::In { file: next, offset: there, .. }) => {
                file == next && offset.checked_add(BLOCK) == Some(there)
            }
            (one, other) => one == other,
        });
        let runs: Vec<_> = runs.take(MOST_MAPPINGS.saturating_add(1)).collect();
        if runs.len() > MOST_MAPPINGS {
            let message = format!(
                "its RAM lies in more than {MOST_MAPPINGS} places, which is the most that are mapped; reading it is allowed"
            );
            return Err(refused(message));
        }
        let place = |lies| match lies {
            Lies::In { file, offset, .. } => files.get(usize::from(file)).map(|file| (Arc::clone(file), offset)),
            Lies::Below | Lies::Nowhere => None,
        };
        Ok(runs.into_iter().map(|(len, lies)| (len, place(lies))).collect())
    }

    /// Blocks in a row that `go_on` each other: their length, and the first of them.
    fn runs(&self, go_on: impl Fn(Lies, Lies) -> bool) -> impl Iterator<Item = (u64, Lies)> {
        let blocks = Region::places(self.len).zip(&self.blocks).map(|((_, len), lies)| (len, *lies));
        let mut blocks = blocks.peekable();
        iter::from_fn(move || {
            let (mut run, first) = blocks.next()?;
            let mut before = first;
            while let Some((len, lies)) = blocks.next_if(|(_, next)| go_on(before, *next)) {
                run = run.saturating_add(len);
                before = lies;
            }
            Some((run, first))
        })
    }
}
