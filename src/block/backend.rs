//! What carries out a disk's operations. It knows no queue and no guest, but for the memory that data moves to and from.

use std::io;

use crate::memory::IoRanges;

/// One operation on the disk. Its range was checked: it lies inside the capacity, in whole sectors.
///
/// It holds all that it needs, so that an engine may keep it and finish it on another thread.
pub(super) enum Operation {
    /// Fill guest memory from `offset` bytes on.
    Read { offset: u64, data: IoRanges },
    /// Write guest memory to `offset` bytes on.
    Write { offset: u64, data: IoRanges },
    /// Make all that was written before stable.
    Flush,
    /// Allow the range's content to be lost.
    Discard(ByteRange),
    /// Make the range read as zeros; with `unmap`, preferably by giving its storage back.
    WriteZeroes { range: ByteRange, unmap: bool },
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Carries out operations. Each call blocks until its operation is done.
pub(super) trait Backend: Send {
    /// # Errors
    /// What the host reports. Of a read or a write, a part may have been done.
    fn run(&mut self, operation: &Operation) -> io::Result<()>;
}
