//! Direct I/O: buffers that the storage does not take as they lie in the guest's memory are copied.

use crate::block::backend::Operation;
use crate::block::tag::Tag;
use crate::event::Io;
use crate::memory::{Buffer, HostBuffer};
use crate::sys::DirectAlignment;

/// The buffers that take the place of those that are not aligned.
pub(super) struct Bounces {
    alignment: DirectAlignment,
    /// For the moment when the thread's pool has none, so that the disk never waits for others.
    reserve: Option<HostBuffer>,
    replaced: Vec<Replaced>,
}

/// An operation's own buffer, while another one is in its place.
struct Replaced {
    tag: Tag,
    original: Buffer,
    by_reserve: bool,
}

impl Bounces {
    /// For operations of at most `max_transfer` bytes.
    pub(super) fn new(alignment: DirectAlignment, max_transfer: u64) -> Self {
        let largest = usize::try_from(max_transfer).unwrap_or(HostBuffer::MAX_LEN).min(HostBuffer::MAX_LEN);
        Self { alignment, reserve: Some(HostBuffer::new(largest)), replaced: Vec::new() }
    }

    /// Puts an aligned buffer in the place of the operation's own, if that is not aligned.
    ///
    /// # Errors
    /// The operation, if no buffer is free now.
    pub(super) fn enter(&mut self, io: &mut Io, tag: Tag, mut operation: Operation) -> Result<Operation, Operation> {
        let Some(buffer) = buffer(&mut operation) else { return Ok(operation) };
        if buffer.is_aligned(self.alignment.memory, self.alignment.offset) {
            return Ok(operation);
        }
        let Some((mut bounce, by_reserve)) = self.take(io, buffer.len()) else { return Err(operation) };
        io.charge(buffer.len());
        // Both have the same length. A write needs the bytes, and a read does not mind.
        let _ = buffer.copy_out(0, &mut bounce);
        let original = std::mem::replace(buffer, Buffer::Host(bounce));
        self.replaced.push(Replaced { tag, original, by_reserve });
        Ok(operation)
    }

    fn take(&mut self, io: &mut Io, len: u64) -> Option<(HostBuffer, bool)> {
        let len = usize::try_from(len).ok()?;
        if let Some(buffer) = io.bounce(len) {
            return Some((buffer, false));
        }
        let mut reserve = self.reserve.take_if(|reserve| len <= reserve.capacity())?;
        reserve.resize(len);
        Some((reserve, true))
    }

    /// Gives the operation its own buffer back. If it is a read that `succeeded`, its bytes are copied there.
    pub(super) fn leave(&mut self, io: &mut Io, tag: Tag, operation: &mut Operation, succeeded: bool) {
        let Some(position) = self.replaced.iter().position(|replaced| replaced.tag == tag) else { return };
        let Replaced { original, by_reserve, .. } = self.replaced.swap_remove(position);
        let is_read = matches!(operation, Operation::Read { .. });
        let Some(buffer) = buffer(operation) else { return };
        let Buffer::Host(bounce) = std::mem::replace(buffer, original) else { return };
        if is_read && succeeded {
            io.charge(buffer.len());
            let _ = buffer.copy_in(0, &bounce);
        }
        if by_reserve {
            self.reserve = Some(bounce);
        }
    }
}

fn buffer(operation: &mut Operation) -> Option<&mut Buffer> {
    match operation {
        Operation::Read { into: buffer, .. } | Operation::Write { from: buffer, .. } => Some(buffer),
        Operation::Flush | Operation::Discard(_) | Operation::WriteZeroes { .. } => None,
    }
}
