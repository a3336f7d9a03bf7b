//! How a template is made of a guest's RAM.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::address::GuestAddress;
use super::aligned::Mapping;
use super::ground::Ground;
use super::guest::GuestMemory;
use super::holes::{holes, is_hole, is_zero};
use super::mapping::{self, cannot_provide, keep_apart, map_places};
use super::own_pages::own_pages;
use super::template::{Extent, Region, Template, lay_over};
use crate::config::{MemoryConfig, PageSize};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::sys::{is_in_memory, lock};

/// So much is looked at at once: if it is all zeroes, it is not stored.
const STEP: usize = 64 << 10;

/// A region that lies in more places than this is copied as a whole: each place is a mapping of the host's.
const MOST_EXTENTS: usize = 256;

/// A region whose files in memory take more than so many times as much as itself is copied as a whole, too: of a file from an earlier
/// time, the guest may use a single page and keep all of it.
const MOST_STORED: u64 = 2;

/// What is known of RAM before the guest stands still: large parts of each region that it has not used.
pub(crate) struct Survey(Vec<Vec<Range<u64>>>);

/// A template, and what is left to do once the guest goes on.
pub(crate) struct Frozen {
    template: Template,
    /// Pages that the mapping of the RAM has no more, though they are those of the template's file.
    aside: Vec<Mapping>,
    /// Files that nobody may change from now on.
    files: Vec<Arc<File>>,
}

impl Frozen {
    pub(crate) fn template(&self) -> &Template {
        &self.template
    }

    /// Frees what stood aside, which takes the longer the more pages the guest had, and gives the template.
    pub(crate) fn finish(self) -> Template {
        drop(self.aside);
        for file in &self.files {
            // Belt and braces: nobody else has a descriptor.
            let _ = mapping::seal(file);
        }
        self.template
    }
}

impl GuestMemory {
    /// Finds out, while the guest runs, what spares time when it stands still.
    pub(crate) fn survey(&self) -> Survey {
        let grounds = lock(&self.grounds);
        let holes = |(ground, mapping): (&Ground, &Mapping)| match ground {
            Ground::Shared(file) => holes(file, mapping.len() as u64),
            Ground::Anonymous | Ground::Private(_) => Vec::new(),
        };
        Survey(grounds.iter().zip(&*self.mappings).map(holes).collect())
    }

    /// Makes a template of what the RAM of a guest that stands still holds. RAM on a memfd gets another mapping, of which each page is its
    /// own once it is changed, and the memfd is the template: the more pages there are, the longer that takes, but nothing is copied. If
    /// that was done before, or if it is RAM of a template, the pages that were changed are copied. Anonymous memory, and memory on pages
    /// of 2 MiB, is copied as a whole.
    ///
    /// Nothing may write to the memory meanwhile; what does may be in the template by half.
    ///
    /// # Errors
    /// [`ErrorKind::HostMemory`] if the host has no room for that. The memory is as usable as before.
    pub(crate) fn freeze(&self, survey: &Survey, config: &MemoryConfig) -> Result<Frozen> {
        let refused = |cause| cannot_provide(self.size()).with_source(cause);
        let mut frozen = Frozen { template: Template::new(Vec::new()), aside: Vec::new(), files: Vec::new() };
        let (mut grounds, mut regions) = (lock(&self.grounds), Vec::new());
        let mappings = self.mappings.iter().zip(&survey.0);
        for ((region, (mapping, unused)), ground) in self.mmap().iter().zip(mappings).zip(grounds.iter_mut()) {
            let part = Part { mapping, start: GuestAddress(region.start_addr().0), pages: config.pages };
            let extents = match ground {
                Ground::Shared(file) if config.pages != PageSize::Huge2Mib => {
                    let extents = without_holes(file, part.len(), unused);
                    frozen.files.push(Arc::clone(file));
                    frozen.aside.extend(part.replace(&extents, ground).map_err(refused)?);
                    extents
                }
                Ground::Private(extents) => {
                    if self.save_own(&part, extents).map_err(refused)? {
                        extents.clone()
                    } else {
                        let extents = self.copied(&part).map_err(refused)?;
                        part.replace(&extents, ground).map_err(refused)?;
                        extents
                    }
                }
                Ground::Shared(_) | Ground::Anonymous => self.copied(&part).map_err(refused)?,
            };
            regions.push(Region { start: part.start, len: part.len(), extents });
        }
        drop(grounds);
        self.place(config)?;
        frozen.template = Template::new(regions);
        Ok(frozen)
    }

    /// Has all of the memory be a copy of a template, which holds the same, page by page as it is changed. The pages that it had go back to the host.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the regions are not those of the template; [`ErrorKind::HostMemory`] if the host has no room for a mapping.
    /// The memory is as usable as before.
    #[cfg(feature = "save")]
    pub(crate) fn rebase(&self, template: &Template, config: &MemoryConfig) -> Result<()> {
        let regions: Vec<_> = self.regions().map(|region| (region.start, region.len)).collect();
        template.fits(&regions)?;
        let mut grounds = lock(&self.grounds);
        for ((region, mapping), ground) in template.regions.iter().zip(&*self.mappings).zip(grounds.iter_mut()) {
            let part = Part { mapping, start: region.start, pages: config.pages };
            let replaced = part.replace(&region.extents, ground);
            replaced.map_err(|cause| cannot_provide(self.size()).with_source(cause))?;
        }
        drop(grounds);
        self.place(config)
    }

    /// Copies the pages of its own, and has them lie in a file like the others. Says no if that cannot be done, or takes too many places.
    fn save_own(&self, part: &Part<'_>, extents: &mut Vec<Extent>) -> io::Result<bool> {
        let Ok(own) = own_pages(part.mapping) else { return Ok(false) };
        if own.len().saturating_mul(2).saturating_add(extents.len()) > MOST_EXTENTS {
            return Ok(false);
        }
        if own.is_empty() {
            return Ok(true);
        }
        let len = own.iter().fold(0u64, |sum, range| sum.saturating_add(range.end.saturating_sub(range.start)));
        if in_memory(extents)?.saturating_add(len) > part.len().saturating_mul(MOST_STORED) {
            return Ok(false);
        }
        let file = Arc::new(mapping::memfd(usize::try_from(len).unwrap_or(usize::MAX))?);
        let mut offset = 0u64;
        for range in own {
            let len = range.end.saturating_sub(range.start);
            self.copy_to(&file, offset, GuestAddress(part.start.0.saturating_add(range.start)), len)?;
            let saved = Extent { len, place: Some((Arc::clone(&file), offset)) };
            part.replace_at(range.start, &saved)?;
            // At once: the next range may be refused.
            *extents = lay_over(extents, range.start, saved);
            offset = offset.saturating_add(len);
        }
        mapping::seal(&file)?;
        Ok(true)
    }

    fn copied(&self, part: &Part<'_>) -> io::Result<Vec<Extent>> {
        let file = Arc::new(mapping::memfd(part.mapping.len())?);
        self.copy_to(&file, 0, part.start, part.len())?;
        mapping::seal(&file)?;
        Ok(without_holes(&file, part.len(), &holes(&file, part.len())))
    }

    /// Copies RAM into a new file, but for its zeroes.
    fn copy_to(&self, file: &File, offset: u64, gpa: GuestAddress, len: u64) -> io::Result<()> {
        let (mut bytes, mut done) = (vec![0; STEP], 0u64);
        while done < len {
            let step = len.saturating_sub(done).min(STEP as u64);
            let part = usize::try_from(step).ok().and_then(|step| bytes.get_mut(..step)).unwrap_or_default();
            self.read(GuestAddress(gpa.0.saturating_add(done)), part).map_err(io::Error::other)?;
            if !is_zero(part) {
                file.write_all_at(part, offset.saturating_add(done))?;
            }
            done = done.saturating_add(step);
        }
        Ok(())
    }
}

/// A region whose mapping is exchanged.
struct Part<'a> {
    mapping: &'a Mapping,
    start: GuestAddress,
    pages: PageSize,
}

impl Part<'_> {
    fn len(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// Has it be a private mapping of those places, which hold the same. Gives the old mapping's pages, if it could take them off, to be freed
    /// later.
    fn replace(&self, extents: &[Extent], ground: &mut Ground) -> io::Result<Option<Mapping>> {
        // Made before anything is touched: it is what a host without memory refuses. Each by itself, since before Linux 6.17 only one
        // mapping is moved at a time.
        let (mut parts, mut at) = (Vec::new(), 0u64);
        for extent in extents {
            parts.push((at, self.mapped(at, extent)?));
            at = at.saturating_add(extent.len);
        }
        // Without this, the replacement frees each page while the guest waits.
        let aside = Mapping::of_pages_of(self.mapping, self.start.0).ok();
        // What was replaced in part lies in too many kinds of places to tell, and is copied from now on.
        *ground = Ground::Anonymous;
        parts.into_iter().try_for_each(|(at, part)| part.replace_in(self.mapping, size(at)?))?;
        *ground = Ground::Private(extents.to_vec());
        Ok(aside)
    }

    /// The same, of a part from `at` on.
    fn replace_at(&self, at: u64, extent: &Extent) -> io::Result<()> {
        self.mapped(at, extent)?.replace_in(self.mapping, size(at)?)
    }

    /// A private mapping for the part from `at` on, which is not there yet.
    fn mapped(&self, at: u64, extent: &Extent) -> io::Result<Mapping> {
        let gpa = self.start.0.saturating_add(at);
        let mapping = map_places(size(extent.len)?, gpa, std::slice::from_ref(extent))?;
        keep_apart(&mapping, self.pages);
        Ok(mapping)
    }
}

fn size(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// How many bytes the files take in memory that extents lie in.
fn in_memory(extents: &[Extent]) -> io::Result<u64> {
    let mut files: Vec<_> = extents.iter().filter_map(|extent| extent.place.as_ref().map(|(file, _)| file)).collect();
    files.sort_unstable_by_key(|file| Arc::as_ptr(file));
    files.dedup_by_key(|file| Arc::as_ptr(file));
    files.into_iter().filter(|file| is_in_memory(file)).try_fold(0u64, |sum, file| {
        let blocks = file.metadata()?.blocks();
        Ok(sum.saturating_add(blocks.saturating_mul(512)))
    })
}

/// A file, but for its holes: a private mapping of one would have a page of the file taken for each that is changed.
fn without_holes(file: &Arc<File>, len: u64, holes: &[Range<u64>]) -> Vec<Extent> {
    let whole = vec![Extent { len, place: Some((Arc::clone(file), 0)) }];
    holes.iter().filter(|hole| is_hole(file, hole)).fold(whole, |extents, hole| {
        let len = hole.end.saturating_sub(hole.start);
        lay_over(&extents, hole.start, Extent { len, place: None })
    })
}

#[cfg(test)]
#[path = "freeze_test.rs"]
mod tests;
