//! The host program's own ends of a console.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::set_nonblocking;

/// Reads what the guest prints: the host program's end of a pipe, made by [`Console::pair`](crate::Console::pair).
///
/// Reading waits for the guest to print something, unless [`set_nonblocking`](Self::set_nonblocking) was called: then it says
/// `WouldBlock`, and an event loop watches the [descriptor](AsFd). The end comes when the guest has ended and all that it printed was
/// read, or when the VM is dropped; a VM that is stopped before its start ends at once. A reader that is too slow misses the
/// oldest output, which [`Vm::console_status`](crate::Vm::console_status) counts; it never holds the guest up for long.
///
/// ```no_run
/// use std::io::{BufRead, BufReader};
///
/// # fn example(builder: vmcell::VmBuilder) -> Result<(), Box<dyn std::error::Error>> {
/// let (console, reader, _writer) = vmcell::Console::pair()?;
/// let vm = builder.console(console).build()?;
/// vm.start()?;
/// for line in BufReader::new(reader).lines() {
///     println!("guest: {}", line?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ConsoleReader(File);

/// Types into the guest's console: the host program's end of a pipe, made by [`Console::pair`](crate::Console::pair).
///
/// Writing waits while the guest does not read and the pipe is full (64 KiB, and as much again in the library), unless
/// [`set_nonblocking`](Self::set_nonblocking) was called. After the guest has ended it fails with `BrokenPipe`. As with every pipe,
/// the process gets SIGPIPE then, which Rust programs ignore.
#[derive(Debug)]
pub struct ConsoleWriter(File);

/// A pipe that the guest's output goes through: our end, and the host program's.
pub(super) fn reader() -> Result<(OwnedFd, ConsoleReader)> {
    let (theirs, ours) = pipe()?;
    Ok((ours.into(), ConsoleReader(File::from(OwnedFd::from(theirs)))))
}

/// A pipe that the guest's input comes from.
pub(super) fn writer() -> Result<(OwnedFd, ConsoleWriter)> {
    let (ours, theirs) = pipe()?;
    Ok((ours.into(), ConsoleWriter(File::from(OwnedFd::from(theirs)))))
}

fn pipe() -> Result<(PipeReader, PipeWriter)> {
    io::pipe().map_err(|e| Error::new(ErrorKind::Host, "cannot make a pipe for a console").with_source(e))
}

impl ConsoleReader {
    /// Sets whether reading fails with `WouldBlock` rather than waiting.
    ///
    /// # Errors
    /// What the host reports.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.0, nonblocking)
    }
}

impl ConsoleWriter {
    /// Sets whether writing fails with `WouldBlock` rather than waiting.
    ///
    /// # Errors
    /// What the host reports.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        set_nonblocking(&self.0, nonblocking)
    }
}

impl Read for ConsoleReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for ConsoleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for ConsoleReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for ConsoleWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<ConsoleReader> for OwnedFd {
    fn from(reader: ConsoleReader) -> Self {
        reader.0.into()
    }
}

impl From<ConsoleWriter> for OwnedFd {
    fn from(writer: ConsoleWriter) -> Self {
        writer.0.into()
    }
}
