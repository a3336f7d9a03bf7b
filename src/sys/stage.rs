//! A pipe of ours that bytes pass on their way from or to a pipe of somebody else's: moving pages between two pipes can be asked
//! not to wait, whatever the flags of either.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// As much as an empty pipe takes in any case.
const MOST: usize = 4096;

pub(super) struct Stage {
    reader: PipeReader,
    writer: PipeWriter,
    /// Bytes that are in the pipe.
    held: usize,
}

impl Stage {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer, held: 0 })
    }

    /// Writes to a pipe as much as there is room for. After an error, the same bytes are to be offered again: some of them are
    /// here.
    pub(super) fn write(&mut self, to: &File, bytes: &[u8]) -> io::Result<usize> {
        if self.held == 0 {
            // There is room, since the pipe is empty.
            self.held = self.writer.write(bytes.get(..MOST).unwrap_or(bytes))?;
        }
        let moved = splice(self.reader.as_raw_fd(), to.as_raw_fd(), self.held)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }

    /// Reads from a pipe what is there.
    pub(super) fn read(&mut self, from: &File, bytes: &mut [u8]) -> io::Result<usize> {
        if self.held == 0 {
            self.held = splice(from.as_raw_fd(), self.writer.as_raw_fd(), bytes.len().min(MOST))?;
        }
        if self.held == 0 {
            return Ok(0);
        }
        let read = self.reader.read(bytes)?;
        self.held = self.held.saturating_sub(read);
        Ok(read)
    }
}

fn splice(from: RawFd, to: RawFd, len: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are open; without offsets the kernel moves bytes from pipe to pipe and touches no memory of ours.
    let moved = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
