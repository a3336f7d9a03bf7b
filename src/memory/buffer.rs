//! What data of a disk operation lies in.

use super::host::HostBuffer;
use super::ranges::{GuestRanges, outside};
use crate::error::Result;

/// Where the data of an operation lies: in the guest's memory, or in the host's.
///
/// A layer that changes data, such as encryption, takes a guest's buffer and passes on one of the host, so that the guest
/// never sees or changes what lies between the two.
#[derive(Debug)]
#[non_exhaustive]
pub enum Buffer {
    /// The guest's memory, which the guest may change at any time.
    Guest(GuestRanges),
    /// The host's memory.
    Host(HostBuffer),
}

impl Buffer {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Guest(ranges) => ranges.len(),
            Self::Host(buffer) => buffer.len() as u64,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` into the buffer, from its byte `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the buffer is shorter; nothing is copied then.
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

    /// Copies bytes of the buffer, from its byte `offset` on, to `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the buffer is shorter; nothing is copied then.
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
