//! RAM as it was at one moment, with which any number of VMs begin.

use std::fs::File;
use std::sync::Arc;

use super::address::GuestAddress;
use crate::error::{Error, ErrorKind, Result};

/// The content of a guest's RAM, which nobody changes. A clone is a handle to the same content.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(super) regions: Arc<[Region]>,
}

/// The content of one region.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) start: GuestAddress,
    pub(super) len: u64,
    /// One behind the other, from the region's first byte to its last.
    pub(super) extents: Vec<Extent>,
}

/// Bytes that lie in one place.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) len: u64,
    /// The file, and the offset there; `None` for zeroes.
    pub(super) place: Option<(Arc<File>, u64)>,
}

impl Template {
    pub(super) fn new(regions: Vec<Region>) -> Self {
        Self { regions: regions.into() }
    }

    /// Whether a guest has this RAM.
    pub(super) fn fits(&self, regions: &[(GuestAddress, u64)]) -> Result<()> {
        let own = self.regions.iter().map(|region| (region.start, region.len));
        if own.clone().eq(regions.iter().copied()) {
            return Ok(());
        }
        let mib = |regions: &mut dyn Iterator<Item = (GuestAddress, u64)>| {
            regions.fold(0u64, |sum, (_, len)| sum.saturating_add(len)) >> 20
        };
        let (has, wants) = (mib(&mut own.clone()), mib(&mut regions.iter().copied()));
        let message =
            format!("a guest of {wants} MiB was asked for, allowed are the {has} MiB of the one that was saved");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

impl Extent {
    /// The same place, `skipped` bytes further on, and `len` bytes of it.
    pub(super) fn part(&self, skipped: u64, len: u64) -> Self {
        let place = self.place.as_ref().map(|(file, offset)| (Arc::clone(file), offset.saturating_add(skipped)));
        Self { len, place }
    }
}

/// Lays `top` over a list of extents from `offset` on.
pub(super) fn lay_over(extents: &[Extent], offset: u64, top: Extent) -> Vec<Extent> {
    let end = offset.saturating_add(top.len);
    let (mut before, mut behind, mut at) = (Vec::new(), Vec::new(), 0u64);
    for extent in extents {
        let next = at.saturating_add(extent.len);
        if at < offset {
            before.push(extent.part(0, next.min(offset).saturating_sub(at)));
        }
        if next > end {
            let from = at.max(end);
            behind.push(extent.part(from.saturating_sub(at), next.saturating_sub(from)));
        }
        at = next;
    }
    before.push(top);
    before.append(&mut behind);
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(len: u64, place: Option<(&Arc<File>, u64)>) -> Extent {
        Extent { len, place: place.map(|(file, offset)| (Arc::clone(file), offset)) }
    }

    fn plain(extents: &[Extent]) -> Vec<(u64, Option<u64>)> {
        extents.iter().map(|extent| (extent.len, extent.place.as_ref().map(|(_, offset)| *offset))).collect()
    }

    #[test]
    fn what_is_laid_over_takes_exactly_its_own_place() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let below = [extent(0x3000, Some((&file, 0x1000))), extent(0x2000, None), extent(0x1000, Some((&file, 0)))];
        let over = |offset, len| plain(&lay_over(&below, offset, extent(len, Some((&file, 0x9000)))));
        let top = Some(0x9000);
        assert_eq!(over(0, 0x6000), [(0x6000, top)]);
        assert_eq!(over(0, 0x1000)[..2], [(0x1000, top), (0x2000, Some(0x2000))]);
        assert_eq!(
            over(0x1000, 0x1000),
            [(0x1000, Some(0x1000)), (0x1000, top), (0x1000, Some(0x3000)), (0x2000, None), (0x1000, Some(0))]
        );
        assert_eq!(over(0x2000, 0x2000), [(0x2000, Some(0x1000)), (0x2000, top), (0x1000, None), (0x1000, Some(0))]);
        assert_eq!(over(0x5000, 0x1000), [(0x3000, Some(0x1000)), (0x2000, None), (0x1000, top)]);
    }
}
