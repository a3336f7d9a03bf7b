//! Templates as files of snapshots have them: where each part of the RAM lies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::address::GuestAddress;
use super::mapping;
use super::template::{Extent, Region, Template};
use crate::sys::start_of_data;

/// How many bytes of a region lie in one place: in a file from an offset on, or nowhere, since they are zeroes.
pub(crate) type Place = (u64, Option<(Arc<File>, u64)>);

impl Template {
    /// Makes one of regions, each of which lies in places one behind the other. Who makes it vouches that nobody changes the files.
    pub(crate) fn of_places(regions: Vec<(GuestAddress, u64, Vec<Place>)>) -> Self {
        let region = |(start, len, places): (_, _, Vec<Place>)| {
            let extents = places.into_iter().map(|(len, place)| Extent { len, place }).collect();
            Region { start, len, extents }
        };
        Self::new(regions.into_iter().map(region).collect())
    }

    /// Makes one of regions that hold nothing but zeroes.
    pub(crate) fn zeroes(regions: impl Iterator<Item = (GuestAddress, u64)>) -> Self {
        Self::of_places(regions.map(|(start, len)| (start, len, vec![(len, None)])).collect())
    }

    /// The first address and the length of each region.
    pub(crate) fn regions(&self) -> impl Iterator<Item = (GuestAddress, u64)> {
        self.regions.iter().map(|region| (region.start, region.len))
    }

    /// Reads a part of a region from `offset` on. Says no, and reads nothing, if zeroes are all that is there.
    pub(crate) fn read(&self, region: usize, offset: u64, bytes: &mut [u8]) -> io::Result<bool> {
        let (mut done, mut any) = (0u64, false);
        for extent in self.parts(region, offset, bytes.len() as u64) {
            let (start, end) = (done, done.saturating_add(extent.len));
            done = end;
            let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let Some(part) = part.and_then(|(start, end)| bytes.get_mut(start..end)) else { break };
            match &extent.place {
                Some((file, at)) if start_of_data(file, *at, at.saturating_add(extent.len))?.is_some() => {
                    file.read_exact_at(part, *at)?;
                    any = true;
                }
                _ => part.fill(0),
            }
        }
        Ok(any)
    }

    /// Whether a part of a region lies in the same places in another template, and so holds the same.
    pub(crate) fn lies_where(&self, other: &Self, region: usize, offset: u64, len: u64) -> bool {
        let is_same = |(ours, theirs): (&Extent, &Extent)| {
            let place = match (&ours.place, &theirs.place) {
                (Some((ours, at)), Some((theirs, there))) => Arc::ptr_eq(ours, theirs) && at == there,
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            };
            place && ours.len == theirs.len
        };
        let (ours, theirs) = (self.parts(region, offset, len), other.parts(region, offset, len));
        ours.len() == theirs.len() && ours.iter().zip(&theirs).all(is_same)
    }

    /// Where a part of a region lies.
    #[cfg(test)]
    pub(crate) fn places_of(&self, region: usize, from: u64, to: u64) -> Vec<Place> {
        let parts = self.parts(region, from, to.saturating_sub(from));
        parts.into_iter().map(|extent| (extent.len, extent.place)).collect()
    }

    /// What lies under a part of a region.
    pub(super) fn parts(&self, region: usize, offset: u64, len: u64) -> Vec<Extent> {
        let (mut at, end, mut parts) = (0u64, offset.saturating_add(len), Vec::new());
        for extent in self.regions.get(region).map(|region| &*region.extents).unwrap_or_default() {
            let next = at.saturating_add(extent.len);
            let (from, to) = (at.max(offset), next.min(end));
            if from < to {
                parts.push(extent.part(from.saturating_sub(at), to.saturating_sub(from)));
            }
            at = next;
            if at >= end {
                break;
            }
        }
        parts
    }
}

/// A file in memory for a template.
pub(crate) fn ram_file(len: u64) -> io::Result<File> {
    mapping::memfd(usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?)
}

/// From now on, nobody can change it.
pub(crate) fn seal_ram_file(file: &File) -> io::Result<()> {
    mapping::seal(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_across_places_and_what_lies_elsewhere_is_told_apart() {
        let file = |byte: u8| {
            let file = ram_file(0x4000).unwrap();
            file.write_all_at(&[byte; 0x4000], 0).unwrap();
            Arc::new(file)
        };
        let (one, two) = (file(1), file(2));
        let template = |middle: Option<(Arc<File>, u64)>| {
            let places = vec![(0x2000, Some((Arc::clone(&one), 0x1000))), (0x1000, middle), (0x5000, None)];
            Template::of_places(vec![(GuestAddress(0), 0x8000, places)])
        };
        let (holed, filled) = (template(None), template(Some((Arc::clone(&two), 0))));
        let mut bytes = [9; 0x2000];
        assert!(filled.read(0, 0x1800, &mut bytes).unwrap());
        assert_eq!([bytes[0], bytes[0x7ff], bytes[0x800], bytes[0x17ff], bytes[0x1800]], [1, 1, 2, 2, 0]);
        assert!(holed.read(0, 0x1000, &mut bytes).unwrap() && !holed.read(0, 0x2000, &mut bytes).unwrap());
        assert_eq!(bytes, [0; 0x2000]);
        let same = |offset, len| holed.lies_where(&filled, 0, offset, len);
        assert_eq!(
            [same(0, 0x2000), same(0x1000, 0x2000), same(0x2fff, 1), same(0x3000, 0x5000)],
            [true, false, false, true]
        );
    }
}
