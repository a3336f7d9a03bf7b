//! The buffers in which the data of disk operations lies.

use super::host::HostBuffer;
use super::ranges::{GuestRanges, outside};
use crate::error::Result;

/// The data of an operation, in the guest's memory or in the host's.
///
/// A layer that changes data, such as encryption, is given a buffer of the guest and passes on a buffer of the host, so that the
/// guest neither sees nor changes the data in between. Copy in and out of either by [`copy_in`](Self::copy_in) and
/// [`copy_out`](Self::copy_out).
#[derive(Debug)]
#[non_exhaustive]
pub enum Buffer {
    /// The data lies in the guest's memory, and the guest may change it at any time.
    Guest(GuestRanges),
    /// The data lies in the host's memory.
    Host(HostBuffer),
}

impl Buffer {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Guest(ranges) => ranges.len(),
            Self::Host(buffer) => buffer.len() as u64,
        }
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether each of its parts begins at a multiple of `memory` bytes and has a length that is one of `len` bytes.
    pub(crate) fn is_aligned(&self, memory: u32, len: u32) -> bool {
        match self {
            Self::Guest(ranges) => ranges.is_aligned(memory, len),
            Self::Host(buffer) => buffer.len().is_multiple_of(len as usize) && memory as usize <= HostBuffer::ALIGNMENT,
        }
    }

    /// Copies `bytes` into the buffer, which is filled from byte `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the buffer is too short. Nothing is copied then.
    pub fn copy_in(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Guest(ranges) => ranges.copy_in(offset, bytes),
            Self::Host(buffer) => {
                let len = buffer.len();
                part(len, offset, bytes.len())
                    .and_then(|range| buffer.get_mut(range))
                    .ok_or_else(|| outside(offset, bytes.len(), len as u64))?
                    .copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Copies the bytes of the buffer from `offset` on to `bytes`, which is filled.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the buffer is too short. Nothing is copied then.
    pub fn copy_out(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        match self {
            Self::Guest(ranges) => ranges.copy_out(offset, bytes),
            Self::Host(buffer) => {
                let from = part(buffer.len(), offset, bytes.len())
                    .and_then(|range| buffer.get(range))
                    .ok_or_else(|| outside(offset, bytes.len(), buffer.len() as u64))?;
                bytes.copy_from_slice(from);
                Ok(())
            }
        }
    }
}

fn part(len: usize, offset: u64, wanted: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(wanted)?;
    (end <= len).then_some(start..end)
}
