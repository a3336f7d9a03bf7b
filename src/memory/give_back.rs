//! Giving pages of the guest's RAM back to the host. The guest finds other content there when it uses them again, and nobody is promised
//! zeroes.

use std::fs::File;
use std::io;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MmapRegion};

use super::address::GuestAddress;
use super::ground::Ground;
use super::guest::GuestMemory;
use super::preallocate::{may_be_refused_later, overcommit};
use crate::config::MemoryConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{ZeroMode, lock, zero_range};

const PAGE: u64 = 4096;

/// A step, and what a page of it costs at most. Measured: a page of 4 KiB takes 0.06 us if it is private, and 0.2 us if it is shared, and each
/// call 3 and 7 us; turns are reckoned to take 2 us for 1 KiB.
const PRIVATE_STEP: u64 = 2 << 20;
const PRIVATE_PAGE_COST: u64 = 64;
const SHARED_STEP: u64 = 512 << 10;
const SHARED_PAGE_COST: u64 = 128;
const CALL_COST: u64 = 4096;

/// How pages of a mapping go back, which depends on what it is a mapping of.
enum Way<'a> {
    /// The mapping lets go of them. A page that is used again is a new one; if a file lies under a private mapping, it is the file's, which
    /// stays whole for others that have mapped it.
    Drop,
    /// The file in memory that all of the mapping's users share gets a hole.
    Punch(&'a File),
}

impl<'a> Way<'a> {
    fn of(ground: &'a Ground) -> Self {
        match ground {
            Ground::Shared(file) => Self::Punch(file),
            Ground::Anonymous | Ground::Private(_) => Self::Drop,
        }
    }

    /// The most bytes at once, and what a page costs.
    fn step(&self) -> (u64, u64) {
        match self {
            Self::Drop => (PRIVATE_STEP, PRIVATE_PAGE_COST),
            Self::Punch(_) => (SHARED_STEP, SHARED_PAGE_COST),
        }
    }

    fn give_back(&self, region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
        match self {
            Self::Drop => drop_pages(region, offset, len),
            Self::Punch(file) => zero_range(file, offset as u64, len as u64, ZeroMode::Deallocate),
        }
    }
}

/// What became of the first part of a range.
#[derive(Debug)]
pub(crate) struct GivenBack {
    /// How long that part is, in bytes.
    pub(crate) len: u64,
    /// How long it took, as so many bytes that are [charged](crate::event::Io::charge).
    pub(crate) cost: u64,
    /// What the host says.
    pub(crate) result: io::Result<()>,
}

impl GuestMemory {
    /// Gives the first pages of a range back to the host: as many as that takes no longer than a part of a turn. `None` if the range is
    /// empty, is not of whole pages, or does not begin with RAM. Other threads may use the pages meanwhile: what they find is the old
    /// content or the new.
    pub(crate) fn give_back(&self, gpa: GuestAddress, len: u64) -> Option<GivenBack> {
        let region = self.mmap().find_region(gpa.inner()).filter(|_| gpa.0.is_multiple_of(PAGE))?;
        let offset = gpa.0.checked_sub(region.start_addr().0)?;
        let index = self.mmap().iter().position(|other| other.start_addr() == region.start_addr())?;
        // Held meanwhile: what is in a file may become what others begin with.
        let grounds = lock(&self.grounds);
        let way = Way::of(grounds.get(index)?);
        let (step, page_cost) = way.step();
        // Huge pages are not torn apart.
        let to_step = step.checked_sub(gpa.0.checked_rem(step)?)?;
        let len = len.min(region.len().checked_sub(offset)?).min(to_step);
        if len == 0 || !len.is_multiple_of(PAGE) {
            return None;
        }
        let cost = len.div_ceil(PAGE).saturating_mul(page_cost).saturating_add(CALL_COST);
        let result = way.give_back(region, usize::try_from(offset).ok()?, usize::try_from(len).ok()?);
        Some(GivenBack { len, cost, result })
    }
}

/// Refuses memory of which a page that was given back could be one that the host does not have any more when it is used again.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if that is so.
pub(crate) fn check_gives_back(config: &MemoryConfig) -> Result<()> {
    if !may_be_refused_later(config.backing, config.pages, overcommit) {
        return Ok(());
    }
    let message = "memory on memfd cannot be given back to a host that overcommits none (vm.overcommit_memory is 2), since an access would end \
                   the process if there were none left; allowed is anonymous memory";
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

fn drop_pages(region: &MmapRegion, offset: usize, len: usize) -> io::Result<()> {
    let fits = offset.checked_add(len).is_some_and(|end| end <= region.size());
    if !fits {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the range lies inside the mapping, which `region` keeps, and stays mapped. It is guest memory, of which there are no
    // references but for moments to numbers that the guest may change anyway.
    let done = unsafe {
        let start = region.as_ptr().add(offset);
        libc::madvise(start.cast(), len, libc::MADV_DONTNEED)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "give_back_test.rs"]
mod tests;
