//! Ranges of guest memory, in order, as one buffer: the data of a request without a copy of ours.

use vm_memory::{Bytes, VolatileSlice};

use super::address::GuestAddress;
use super::lease::Lease;
use crate::error::{Error, ErrorKind, Result};

/// Ranges of guest memory, in order, which were checked to be RAM.
///
/// The guest may change their bytes at any time, so the bytes can be copied, or handed to the kernel for I/O, but never
/// referenced. The memory stays mapped for as long as this value lives, on whatever thread. A pause or a reset of the device
/// that the ranges belong to waits until it is dropped.
pub struct GuestRanges {
    pub(super) vectors: Vec<IoVec>,
    /// Vectors before this one were taken off the front.
    first: usize,
    len: u64,
    lease: Lease,
}

/// A contiguous range as the kernel takes it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct IoVec(pub(super) libc::iovec);

// SAFETY: the pointer leads into guest memory, which belongs to no thread; whoever holds an `IoVec` with a range in it also
// holds the `Lease` that keeps the mapping alive.
unsafe impl Send for IoVec {}

/// Storage for the ranges of one buffer, to be used again.
#[derive(Default)]
pub(crate) struct RangeList(Vec<IoVec>);

impl GuestRanges {
    /// A buffer without a range.
    pub(crate) fn new(list: RangeList, lease: Lease) -> Self {
        Self { vectors: list.0, first: 0, len: 0, lease }
    }

    /// Adds ranges at the end. Empty ones are left out.
    ///
    /// # Errors
    /// [`ErrorKind::GuestAddress`](crate::ErrorKind::GuestAddress) if a range is not RAM; those before it are added.
    pub(crate) fn extend(&mut self, ranges: impl IntoIterator<Item = (GuestAddress, u32)>) -> Result<()> {
        for (gpa, len) in ranges {
            if len == 0 {
                continue;
            }
            let mut add = |slice: VolatileSlice<'_>| {
                // `self.lease` keeps the mapping alive for longer than the guard that is dropped here.
                let start = slice.ptr_guard_mut().as_ptr();
                self.len = self.len.saturating_add(slice.len() as u64);
                self.vectors.push(IoVec(libc::iovec { iov_base: start.cast(), iov_len: slice.len() }));
            };
            let memory = self.lease.memory();
            match memory.slice(gpa, len as usize) {
                Some(slice) => add(slice),
                None => memory.slices(gpa, len as usize)?.try_for_each(|slice| slice.map(&mut add))?,
            }
        }
        Ok(())
    }

    /// Returns the length of all ranges together, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of contiguous parts.
    pub fn count(&self) -> usize {
        self.vectors().len()
    }

    /// Whether each part begins at a multiple of `memory` bytes and has a length that is one of `len` bytes.
    pub(super) fn is_aligned(&self, memory: u32, len: u32) -> bool {
        self.vectors().iter().all(|IoVec(vector)| {
            vector.iov_base.addr().is_multiple_of(memory as usize) && vector.iov_len.is_multiple_of(len as usize)
        })
    }

    /// Copies `bytes` into the guest's memory, which is filled from byte `offset` of the ranges on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the ranges are too short. Nothing is copied then.
    pub fn copy_in(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(slice) = self.first_part(offset, bytes.len()) {
            slice.copy_from(bytes);
            return Ok(());
        }
        self.check(offset, bytes.len())?;
        let mut rest = bytes;
        self.each_part(offset, bytes.len(), |slice| {
            let (part, tail) = rest.split_at(slice.len());
            rest = tail;
            // The slice is exactly as long as the part.
            let _ = slice.write_slice(part, 0);
        });
        Ok(())
    }

    /// Copies the guest's memory from byte `offset` of the ranges on to `bytes`, which is filled. A second copy may give other
    /// bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the ranges are too short. Nothing is copied then.
    pub fn copy_out(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        if let Some(slice) = self.first_part(offset, bytes.len()) {
            slice.copy_to(bytes);
            return Ok(());
        }
        self.check(offset, bytes.len())?;
        let len = bytes.len();
        let mut rest = bytes;
        self.each_part(offset, len, |slice| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(slice.len());
            rest = tail;
            let _ = slice.read_slice(part, 0);
        });
        Ok(())
    }

    /// Copies `len` bytes from byte `offset` of these ranges on to other ranges, from byte `to_offset` of them on: from one guest's memory
    /// to another's, without a copy in between.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if either ranges are too short. Nothing is copied then.
    pub fn copy_to(&self, offset: u64, to: &Self, to_offset: u64, len: usize) -> Result<()> {
        self.check(offset, len)?;
        to.check(to_offset, len)?;
        let mut at = to_offset;
        self.each_part(offset, len, |from| {
            let mut done = 0;
            to.each_part(at, from.len(), |into| {
                // The parts of `into` are together as long as `from`.
                if let Ok(from) = from.subslice(done, into.len()) {
                    from.copy_to_volatile_slice(into);
                }
                done = done.saturating_add(into.len());
            });
            at = at.saturating_add(from.len() as u64);
        });
        Ok(())
    }

    /// Cuts the ranges in two and returns the part from byte `at` on. If `at` lies past the end, that part is empty.
    #[must_use]
    pub fn split_off(&mut self, at: u64) -> Self {
        let mut tail = Self::new(RangeList::default(), self.lease.clone());
        tail.len = self.len.saturating_sub(at);
        self.len = self.len.min(at);
        let (mut left, mut kept) = (at, self.first);
        while left > 0
            && let Some(IoVec(vector)) = self.vectors.get_mut(kept)
        {
            let inside = part_of(left, vector.iov_len);
            if let Some(behind @ 1..) = vector.iov_len.checked_sub(inside) {
                let start = vector.iov_base.cast::<u8>().wrapping_add(inside);
                tail.vectors.push(IoVec(libc::iovec { iov_base: start.cast(), iov_len: behind }));
                vector.iov_len = inside;
            }
            left = left.saturating_sub(inside as u64);
            kept = kept.saturating_add(1);
        }
        tail.vectors.extend_from_slice(self.vectors.get(kept..).unwrap_or_default());
        self.vectors.truncate(kept);
        tail
    }

    /// Takes the first `count` parts off.
    pub(crate) fn drop_front(&mut self, count: usize) {
        let count = count.min(self.vectors().len());
        self.len = self.len.saturating_sub(self.len_of(count));
        self.first = self.first.saturating_add(count);
        // Moving the rest now and then keeps the list short; each part is moved once on average.
        if self.first >= self.vectors().len() {
            self.vectors.drain(..self.first);
            self.first = 0;
        }
    }

    /// Takes the first `count` parts off, and returns them as a buffer of their own, in the storage of `list`.
    pub(crate) fn take_parts(&mut self, count: usize, list: RangeList) -> Self {
        let mut taken = Self::new(list, self.lease.clone());
        let count = count.min(self.vectors().len());
        taken.len = self.len_of(count);
        // A guest may have hundreds of such buffers out, of one part each.
        taken.vectors.reserve_exact(count);
        taken.vectors.extend_from_slice(self.vectors().get(..count).unwrap_or_default());
        self.drop_front(count);
        taken
    }

    /// Copies the first bytes to `bytes`, which is filled, and takes them off. Says whether there were enough.
    pub(crate) fn take_front(&mut self, bytes: &mut [u8]) -> bool {
        if self.copy_out(0, bytes).is_err() {
            return false;
        }
        let mut left = bytes.len();
        self.len = self.len.saturating_sub(left as u64);
        while let Some(IoVec(vector)) = self.vectors.get_mut(self.first) {
            if let Some(behind @ 1..) = vector.iov_len.checked_sub(left) {
                vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(left).cast();
                vector.iov_len = behind;
                break;
            }
            left = left.saturating_sub(vector.iov_len);
            self.first = self.first.saturating_add(1);
        }
        true
    }

    /// Takes all ranges off. The storage and the lease stay.
    pub(crate) fn clear(&mut self) {
        self.vectors.clear();
        (self.first, self.len) = (0, 0);
    }

    /// Gives the storage back, to be used again.
    pub(crate) fn into_list(self) -> RangeList {
        let mut vectors = self.vectors;
        vectors.clear();
        RangeList(vectors)
    }

    /// Returns the length of the first `parts` together, in bytes.
    pub(crate) fn len_of(&self, parts: usize) -> u64 {
        let vectors = self.vectors();
        match vectors.get(..parts) {
            Some(vectors) if parts < self.count() => vectors.iter().map(|IoVec(vector)| vector.iov_len as u64).sum(),
            Some(_) | None => self.len,
        }
    }

    /// Puts another vector in the place of the one behind the first `parts`, and returns that one. At the end, there is none. It does
    /// not count as one of the ranges, so put back what was there.
    pub(super) fn set_behind(&mut self, parts: usize, vector: Option<IoVec>) -> Option<IoVec> {
        let place = self.first.saturating_add(parts.min(self.count()));
        let before = self.vectors.get(place).copied();
        match (self.vectors.get_mut(place), vector) {
            (Some(place), Some(vector)) => *place = vector,
            (None, Some(vector)) => self.vectors.push(vector),
            (_, None) => self.vectors.truncate(place),
        }
        before
    }

    pub(super) fn vectors(&self) -> &[IoVec] {
        self.vectors.get(self.first..).unwrap_or_default()
    }

    /// For C: the ranges as the kernel takes them. They may be used for as long as `self` lives.
    pub(crate) fn as_iovecs(&self) -> &[libc::iovec] {
        let vectors = self.vectors();
        // SAFETY: `IoVec` is a transparent wrapper of `iovec`, and the slice is borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts(vectors.as_ptr().cast(), vectors.len()) }
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_some_and(|end| end <= self.len) { Ok(()) } else { Err(outside(offset, len, self.len)) }
    }

    /// The `len` bytes from `offset` on, if they lie in the first range, as those of a header do.
    fn first_part(&self, offset: u64, len: usize) -> Option<VolatileSlice<'_>> {
        let IoVec(vector) = self.vectors().first()?;
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len).is_none_or(|end| end > vector.iov_len) {
            return None;
        }
        let start = vector.iov_base.cast::<u8>().wrapping_add(offset);
        // SAFETY: as in `each_part`.
        Some(unsafe { VolatileSlice::new(start, len) })
    }

    /// Calls `each` for the parts of `len` bytes from `offset` on, which must lie inside.
    fn each_part(&self, offset: u64, len: usize, mut each: impl FnMut(VolatileSlice<'_>)) {
        let (mut skip, mut left) = (offset, len);
        for IoVec(vector) in self.vectors() {
            if left == 0 {
                break;
            }
            let skipped = part_of(skip, vector.iov_len);
            skip = skip.saturating_sub(skipped as u64);
            let part = vector.iov_len.saturating_sub(skipped).min(left);
            left = left.saturating_sub(part);
            if part > 0 {
                let start = vector.iov_base.cast::<u8>().wrapping_add(skipped);
                // SAFETY: the part lies inside a range of guest memory that `self.lease` keeps mapped, and is only reached by
                // volatile copies.
                each(unsafe { VolatileSlice::new(start, part) });
            }
        }
    }
}

/// As many of `bytes` as lie in a vector of `len`.
pub(super) fn part_of(bytes: u64, len: usize) -> usize {
    usize::try_from(bytes).map_or(len, |bytes| bytes.min(len))
}

pub(super) fn outside(offset: u64, wanted: usize, len: u64) -> Error {
    let message = format!("{wanted} bytes at offset {offset} were asked for, the buffer has {len} bytes");
    Error::new(ErrorKind::InvalidConfig, message)
}

impl std::fmt::Debug for GuestRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestRanges").field("len", &self.len).field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "ranges_test.rs"]
mod tests;
