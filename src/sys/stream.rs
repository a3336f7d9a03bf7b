//! Byte streams of the host, read and written without ever waiting for the other side.
//!
//! A program shares its descriptors' flags with other processes (its standard output's above all), and may read and write them
//! itself at the same time. So no descriptor is made non-blocking, none is opened a second time, and that it was ready a moment
//! ago proves nothing. Each kind has its own way to be used without waiting; where it has none, a thread that may wait does it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

#[cfg(not(shuttle))]
use super::epoll::{Epoll, Watch};
use super::file::waits_always;
#[cfg(shuttle)]
use super::model::{Epoll, Watch};
use super::stage::Stage;
use crate::error::{Error, ErrorKind, Result};

/// In which direction the bytes of a stream go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    FromUs,
    ToUs,
}

/// What came of an attempt to move bytes without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// So many were moved. A read of none is the end.
    Moved(usize),
    /// None can be moved before the descriptor changes, which [`polled`](Stream::polled) tells.
    NotNow,
    /// Only a thread that may wait can tell.
    MayWait,
}

/// A descriptor of any kind, used in one direction.
pub(crate) struct Stream {
    file: Arc<File>,
    way: Way,
    is_pipe: bool,
    is_polled: bool,
    stage: Option<Stage>,
}

/// How not to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a flag of each message.
    Socket,
    /// By a flag of each system call.
    NoWait,
    /// By a pipe of ours that its pages are moved through: for pipes that have no such flag (FIFOs, and all before Linux 6.4).
    Stage,
    /// There is no way: terminals, and files of many file systems.
    None,
}

impl Stream {
    /// A stream on a duplicate of `fd`.
    ///
    /// # Errors
    /// [`ErrorKind::Console`] if `fd` is not open in this direction, or cannot be duplicated.
    pub(crate) fn new(fd: BorrowedFd<'_>, direction: Direction) -> Result<Self> {
        let failed = |e: io::Error| {
            let message = format!("cannot use descriptor {} for a console", fd.as_raw_fd());
            Error::new(ErrorKind::Console, message).with_source(e)
        };
        let file = File::from(fd.try_clone_to_owned().map_err(failed)?);
        check_access(&file, fd.as_raw_fd(), direction)?;
        Self::over(file).map_err(|e| failed(io::Error::other(e)))
    }

    /// A stream on a file that is open in its direction.
    pub(crate) fn over(file: File) -> Result<Self> {
        let host = |e: io::Error| Error::new(ErrorKind::Host, "cannot ask for a descriptor's type").with_source(e);
        let file_type = file.metadata().map_err(host)?.file_type();
        let way = if file_type.is_socket() {
            Way::Socket
        } else if file_type.is_file() && waits_always(&file).unwrap_or(true) {
            Way::None
        } else {
            Way::NoWait
        };
        let is_polled = can_be_polled(file.as_raw_fd())?;
        Ok(Self { file: Arc::new(file), way, is_pipe: file_type.is_fifo(), is_polled, stage: None })
    }

    /// What to wait on after [`Attempt::NotNow`]; `None` for one that is always ready.
    pub(crate) fn polled(&self) -> Option<&Arc<File>> {
        self.is_polled.then_some(&self.file)
    }

    /// Writes as much as can be written without waiting. After anything but `Moved`, the same bytes are to be offered again.
    ///
    /// # Errors
    /// What the host reports.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<Attempt> {
        loop {
            let written = match self.way {
                Way::Socket => send(&self.file, bytes),
                Way::NoWait => write_no_wait(&self.file, bytes),
                Way::Stage => staged(&mut self.stage, |stage| stage.write(&self.file, bytes)),
                Way::None => return self.when_ready(libc::POLLOUT),
            };
            if let Some(attempt) = self.judge(written) {
                return attempt;
            }
        }
    }

    /// Reads what is there without waiting.
    ///
    /// # Errors
    /// What the host reports.
    pub(crate) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<Attempt> {
        loop {
            let read = match self.way {
                Way::Socket => receive(&self.file, bytes),
                Way::NoWait => read_no_wait(&self.file, bytes),
                Way::Stage => staged(&mut self.stage, |stage| stage.read(&self.file, bytes)),
                Way::None => return self.when_ready(libc::POLLIN),
            };
            if let Some(attempt) = self.judge(read) {
                return attempt;
            }
        }
    }

    /// Writes, for as long as that takes.
    ///
    /// # Errors
    /// What the host reports.
    pub(crate) fn write_waiting(&self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.file).write(bytes)
    }

    /// Reads, for as long as that takes.
    ///
    /// # Errors
    /// What the host reports.
    pub(crate) fn read_waiting(&self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(bytes)
    }

    /// What a call's result says; `None` if it cannot be used on this descriptor, and another way is to be tried.
    fn judge(&mut self, result: io::Result<usize>) -> Option<io::Result<Attempt>> {
        match result {
            Ok(moved) => Some(Ok(Attempt::Moved(moved))),
            // What cannot be polled waits for its storage.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Some(Ok(if self.is_polled { Attempt::NotNow } else { Attempt::MayWait }))
            }
            Err(e) if self.way != Way::Socket && is_unsupported(&e) => {
                self.way = if self.way == Way::NoWait && self.is_pipe { Way::Stage } else { Way::None };
                self.stage = None;
                None
            }
            Err(e) => {
                // It may hold bytes that will be offered again.
                self.stage = None;
                Some(Err(e))
            }
        }
    }

    /// Spares a thread that may wait from doing so, as far as one can tell.
    fn when_ready(&self, events: libc::c_short) -> io::Result<Attempt> {
        let is_ready = !self.is_polled || is_ready(self.file.as_raw_fd(), events)?;
        Ok(if is_ready { Attempt::MayWait } else { Attempt::NotNow })
    }
}

fn staged(stage: &mut Option<Stage>, call: impl FnOnce(&mut Stage) -> io::Result<usize>) -> io::Result<usize> {
    match stage {
        Some(stage) => call(stage),
        None => call(stage.insert(Stage::new()?)),
    }
}

/// Sets whether calls on a file of ours that would wait fail instead.
pub(crate) fn set_nonblocking(file: &File, nonblocking: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open, and F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: the descriptor is open, and F_SETFL takes a plain number.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a system call, or a flag of it, is not for this kernel, this file or this process.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM))
}

fn check_access(file: &File, fd: RawFd, direction: Direction) -> Result<()> {
    // SAFETY: the descriptor is open, and F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    let (way, wrong) = match direction {
        Direction::FromUs => ("output", libc::O_RDONLY),
        Direction::ToUs => ("input", libc::O_WRONLY),
    };
    if flags >= 0 && flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != wrong {
        return Ok(());
    }
    let needed = if direction == Direction::FromUs { "writing" } else { "reading" };
    let message = format!("descriptor {fd} was given for a console's {way}, but is not open for {needed}");
    Err(Error::new(ErrorKind::Console, message))
}

/// Whether epoll can watch a descriptor: regular files, and devices that are always ready, it refuses.
fn can_be_polled(fd: RawFd) -> Result<bool> {
    match Epoll::new()?.add(fd, Watch::READABLE, 0) {
        Ok(()) => Ok(true),
        Err(e) => {
            let cause = std::error::Error::source(&e).and_then(|cause| cause.downcast_ref::<io::Error>());
            let is_refused = cause.is_some_and(|cause| cause.raw_os_error() == Some(libc::EPERM));
            if is_refused { Ok(false) } else { Err(e) }
        }
    }
}

/// Whether one of `events` has come, or the descriptor is in error. A hang-up alone does not count: the master's side of a
/// pseudo-terminal without a terminal has one, and waits for room all the same.
fn is_ready(fd: RawFd, events: libc::c_short) -> io::Result<bool> {
    let mut polled = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: the pointer leads to one structure, as the call is told.
    let count = unsafe { libc::poll(&mut polled, 1, 0) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(polled.revents & (events | libc::POLLERR) != 0) }
}

fn send(file: &File, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of one slice, which the kernel only reads.
    length(unsafe { libc::send(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

fn receive(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice, which is ours alone.
    length(unsafe { libc::recv(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) })
}

/// The place where the file stands, as the low and the high half.
const WHERE_IT_STANDS: (libc::c_long, libc::c_long) = (-1, -1);
/// As wide as what `syscall` hands on.
const NO_WAIT: libc::c_long = libc::RWF_NOWAIT as libc::c_long;

fn write_no_wait(file: &File, bytes: &[u8]) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let (low, high) = WHERE_IT_STANDS;
    // SAFETY: the vector is that of one slice, which the kernel only reads.
    length(unsafe { libc::syscall(libc::SYS_pwritev2, file.as_raw_fd(), &vector, 1usize, low, high, NO_WAIT) })
}

fn read_no_wait(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let (low, high) = WHERE_IT_STANDS;
    // SAFETY: the vector is that of one slice, which is ours alone.
    length(unsafe { libc::syscall(libc::SYS_preadv2, file.as_raw_fd(), &vector, 1usize, low, high, NO_WAIT) })
}

fn length<R>(result: R) -> io::Result<usize>
where
    usize: TryFrom<R>,
{
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
