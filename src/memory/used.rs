//! Which parts of its RAM a guest uses, and reading them ahead where they lie.

use std::io;

use super::GuestAddress;
use super::guest::GuestMemory;
use super::own_pages::{Kept, pages_that, untold};
use super::template::Template;
use crate::error::Result;
use crate::sys::read_ahead;

impl GuestMemory {
    /// The ranges of RAM that the guest has used: the address and the length of each, in ascending order.
    ///
    /// # Errors
    /// [`Host`](crate::ErrorKind::Host) without `/proc`.
    pub(crate) fn used(&self) -> Result<Vec<(GuestAddress, u64)>> {
        let mut used = Vec::new();
        for (mapping, region) in self.mappings.iter().zip(self.regions()) {
            let pages = pages_that(mapping, |kept| matches!(kept, Kept::Own | Kept::OfFile)).map_err(untold)?;
            let place = |range: &std::ops::Range<u64>| {
                (GuestAddress(region.start.0.saturating_add(range.start)), range.end.saturating_sub(range.start))
            };
            used.extend(pages.iter().map(place));
        }
        Ok(used)
    }
}

impl Template {
    /// Asks the kernel to read a range of a region, as far as it lies in files. It goes on reading when this returns.
    pub(crate) fn read_ahead(&self, region: usize, offset: u64, len: u64) -> io::Result<()> {
        for extent in self.parts(region, offset, len) {
            if let Some((file, at)) = &extent.place {
                read_ahead(file, *at, extent.len)?;
            }
        }
        Ok(())
    }
}
