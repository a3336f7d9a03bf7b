//! One request of the driver: its buffers, copied and checked once.

use std::sync::Arc;

use super::descriptor::{Descriptor, Segment};
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory, Lease};

/// A descriptor chain that was taken from a queue: one request of the driver, with the buffers that the device may read and
/// those that it may write.
///
/// Its descriptors were read once and checked: all of them lie inside RAM, those that the device reads come before those that it
/// writes, and together they are shorter than 4 GiB. The *content* of the buffers may change at any time, so a device copies
/// whatever it bases a decision on.
///
/// A chain keeps the guest's memory mapped, and may be sent to another thread. Each chain is completed exactly once: by
/// [`Queue::complete`](super::Queue::complete), or with length 0 soon after it was dropped, on whatever thread. After a reset,
/// dropping a chain does nothing.
pub struct Chain {
    /// In a box, since a chain is moved several times on its way through a device.
    taken: Box<Taken>,
}

struct Taken {
    shared: Arc<Shared>,
    head: u16,
    /// The index in the available ring that it was taken at.
    position: u16,
    buffers: Buffers,
    lease: Lease,
    done: bool,
}

/// So many segments have room at first, since there may be hundreds of chains that wait for frames.
const USUAL_SEGMENTS: usize = 1;

/// The segments of a chain: first what the device reads, then what it writes.
#[derive(Default)]
pub(super) struct Buffers {
    segments: Vec<Segment>,
    first_writable: usize,
    readable_len: u32,
    writable_len: u32,
}

impl Buffers {
    fn with_room() -> Self {
        Self { segments: Vec::with_capacity(USUAL_SEGMENTS), ..Self::default() }
    }

    /// Adds the buffer of a descriptor; `None` if the chain breaks a rule by it, or has more than `limit`.
    pub(super) fn push(&mut self, memory: &GuestMemory, descriptor: Descriptor, limit: usize) -> Option<()> {
        let segment = descriptor.segment;
        let fits = self.segments.len() < limit && segment.len != 0 && memory.contains(segment.gpa, segment.len.into());
        if !fits {
            return None;
        }
        self.readable_len.checked_add(self.writable_len)?.checked_add(segment.len)?;
        if descriptor.is_writable() {
            self.writable_len = self.writable_len.checked_add(segment.len)?;
        } else if self.writable_len == 0 {
            self.readable_len = self.readable_len.checked_add(segment.len)?;
            self.first_writable = self.first_writable.checked_add(1)?;
        } else {
            return None;
        }
        self.segments.push(segment);
        Some(())
    }

    /// Forgets all buffers, and keeps their storage.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        (self.first_writable, self.readable_len, self.writable_len) = (0, 0, 0);
    }
}

impl Chain {
    /// One that is not taken yet. It holds a lease.
    pub(super) fn blank(shared: &Arc<Shared>) -> Self {
        let (shared, lease) = (Arc::clone(shared), shared.lessor.lease());
        let taken = Taken { shared, head: 0, position: 0, buffers: Buffers::with_room(), lease, done: true };
        Self { taken: Box::new(taken) }
    }

    /// What the queue fills before the chain [begins](Self::begin).
    pub(super) fn buffers(&mut self) -> &mut Buffers {
        &mut self.taken.buffers
    }

    /// From now on it is the chain that begins at `head`, and is to be completed.
    pub(super) fn begin(&mut self, head: u16, position: u16) {
        let taken = &mut *self.taken;
        (taken.head, taken.position, taken.done) = (head, position, false);
    }

    /// Which of all chains of its queue it is, as the available ring counts them.
    pub(crate) fn position(&self) -> u16 {
        self.taken.position
    }

    /// Returns the parts that the device may read, in order.
    pub fn readable(&self) -> &[Segment] {
        let Buffers { segments, first_writable, .. } = &self.taken.buffers;
        segments.get(..*first_writable).unwrap_or_default()
    }

    /// Returns the parts that the device may write, in order.
    pub fn writable(&self) -> &[Segment] {
        let Buffers { segments, first_writable, .. } = &self.taken.buffers;
        segments.get(*first_writable..).unwrap_or_default()
    }

    /// Returns how many bytes the device may read.
    pub fn readable_len(&self) -> u32 {
        self.taken.buffers.readable_len
    }

    /// Returns how many bytes the device may write.
    pub fn writable_len(&self) -> u32 {
        self.taken.buffers.writable_len
    }

    /// Returns `len` readable bytes from `offset` on, as segments, or fewer if the chain ends before.
    pub fn readable_range(&self, offset: u32, len: u32) -> impl Iterator<Item = Segment> + '_ {
        cut(self.readable(), offset, len)
    }

    /// Returns `len` writable bytes from `offset` on, as segments, or fewer if the chain ends before.
    pub fn writable_range(&self, offset: u32, len: u32) -> impl Iterator<Item = Segment> + '_ {
        cut(self.writable(), offset, len)
    }

    /// Copies the readable bytes from `offset` on to `bytes`, which is filled. A second read of the same bytes may give others.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] if the chain has too few readable bytes.
    pub fn read(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let len = checked_len(offset, bytes.len(), self.readable_len(), "readable")?;
        if let Some(gpa) = in_one(self.readable(), self.readable_len(), offset, len) {
            return self.taken.lease.memory().read(gpa, bytes);
        }
        let mut rest = bytes;
        for segment in self.readable_range(offset, len) {
            let (part, tail) = rest.split_at_mut_checked(segment.len as usize).ok_or_else(torn)?;
            self.taken.lease.memory().read(segment.gpa, part)?;
            rest = tail;
        }
        Ok(())
    }

    /// Copies `bytes` into the writable bytes from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::Virtqueue`] if the chain has too few writable bytes. Nothing is written then.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> Result<()> {
        let len = checked_len(offset, bytes.len(), self.writable_len(), "writable")?;
        if let Some(gpa) = in_one(self.writable(), self.writable_len(), offset, len) {
            return self.taken.lease.memory().write(gpa, bytes);
        }
        let mut rest = bytes;
        for segment in self.writable_range(offset, len) {
            let (part, tail) = rest.split_at_checked(segment.len as usize).ok_or_else(torn)?;
            self.taken.lease.memory().write(segment.gpa, part)?;
            rest = tail;
        }
        Ok(())
    }

    /// Forgets its buffers and their storage, for a device that gives it back unused but has to keep it for a while.
    pub(crate) fn forget_buffers(&mut self) {
        self.taken.buffers = Buffers::default();
    }

    /// Ends it, and returns its head, if it was taken from this queue. It is blank then.
    pub(super) fn end(&mut self, queue: &Arc<Shared>) -> Option<u16> {
        if !Arc::ptr_eq(&self.taken.shared, queue) {
            return None;
        }
        self.taken.done = true;
        Some(self.taken.head)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.done {
            self.shared.lose(self.head);
        }
    }
}

fn cut(segments: &[Segment], offset: u32, len: u32) -> impl Iterator<Item = Segment> + '_ {
    let (mut skip, mut take) = (offset, len);
    segments.iter().filter_map(move |segment| {
        let skipped = skip.min(segment.len);
        skip = skip.saturating_sub(skipped);
        let len = segment.len.saturating_sub(skipped).min(take);
        take = take.saturating_sub(len);
        let gpa = segment.gpa.checked_add(skipped.into())?;
        (len > 0).then_some(Segment { gpa, len })
    })
}

/// Where `len` bytes at `offset` are, if they lie in the first segment or in the last: a header or a status mostly does.
fn in_one(segments: &[Segment], total: u32, offset: u32, len: u32) -> Option<GuestAddress> {
    let end = offset.checked_add(len)?;
    let (first, last) = (segments.first()?, segments.last()?);
    if end <= first.len {
        return first.gpa.checked_add(offset.into());
    }
    let inside = offset.checked_sub(total.checked_sub(last.len)?)?;
    last.gpa.checked_add(inside.into()).filter(|_| end <= total)
}

fn checked_len(offset: u32, len: usize, available: u32, what: &str) -> Result<u32> {
    let wanted = u32::try_from(len).ok().filter(|len| offset.checked_add(*len).is_some_and(|end| end <= available));
    wanted.ok_or_else(|| {
        let message = format!("{len} bytes at offset {offset} do not fit in the chain's {available} {what} bytes");
        Error::new(ErrorKind::Virtqueue, message)
    })
}

fn torn() -> Error {
    Error::new(ErrorKind::Virtqueue, "a chain's segments do not add up")
}
