//! Byte streams of the host, read and written without ever waiting for the other side.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use crate::error::{Error, ErrorKind, Result};

/// Where bytes go.
///
/// The descriptors of a process (its standard output above all) share their flags with other processes, so they are not
/// made non-blocking: a pipe or a terminal is opened a second time, and a socket is told with each message.
pub(crate) struct OutputStream {
    file: File,
    kind: Kind,
}

/// Where bytes come from.
pub(crate) struct InputStream {
    file: File,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Always ready, and unknown to epoll: a regular file or a device like `/dev/null`.
    Immediate,
    Socket,
    /// A pipe or a terminal with flags of its own.
    NonBlocking,
    /// One whose flags are shared, so that it is only used when it is ready, and then for little at a time.
    Shared,
}

/// What the kernel takes without waiting from a pipe that said that it is writable (PIPE_BUF).
const SMALL: usize = 4096;

impl OutputStream {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let (file, kind) = own(fd, OpenOptions::new().write(true))?;
        Ok(Self { file, kind })
    }

    /// Whether to write only after epoll said that it is writable.
    pub(crate) fn must_be_polled(&self) -> bool {
        self.kind != Kind::Immediate
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` where there is none at the moment, or what the host reports.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.kind {
            Kind::Immediate | Kind::NonBlocking => self.file.write(bytes),
            Kind::Shared => self.file.write(bytes.get(..SMALL).unwrap_or(bytes)),
            Kind::Socket => send(self.file.as_fd(), bytes),
        }
    }
}

impl InputStream {
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let (file, kind) = own(fd, OpenOptions::new().read(true))?;
        Ok(Self { file, kind })
    }

    /// Whether to read only after epoll said that there is something.
    pub(crate) fn must_be_polled(&self) -> bool {
        self.kind != Kind::Immediate
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing at the moment, or what the host reports.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl AsFd for OutputStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsFd for InputStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn own(fd: BorrowedFd<'_>, options: &mut OpenOptions) -> Result<(File, Kind)> {
    let failed = |e: io::Error| {
        let message = format!("cannot use descriptor {} for a console", fd.as_raw_fd());
        Error::new(ErrorKind::Console, message).with_source(e)
    };
    let own: OwnedFd = fd.try_clone_to_owned().map_err(failed)?;
    let file = File::from(own);
    let file_type = file.metadata().map_err(failed)?.file_type();
    if file_type.is_socket() {
        return Ok((file, Kind::Socket));
    }
    if !file_type.is_fifo() && !is_terminal(fd) {
        return Ok((file, Kind::Immediate));
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Ok(reopened) => Ok((reopened, Kind::NonBlocking)),
        // Without /proc, or where the terminal belongs to somebody else.
        Err(_) => Ok((file, Kind::Shared)),
    }
}

fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    std::io::IsTerminal::is_terminal(&fd)
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of one slice, which the kernel only reads.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_full_pipe_refuses_instead_of_waiting_and_its_flags_stay() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = OutputStream::new(writer.as_fd()).unwrap();
        assert!(stream.must_be_polled());
        let error = loop {
            if let Err(error) = stream.write(&[0; 9999]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // SAFETY: the descriptor is open, and the command takes no argument.
        let flags = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        drop(reader);
        // A process that another test is just starting holds the reader's end too, until it has become its program.
        while stream.write(b"x").unwrap_err().kind() == io::ErrorKind::WouldBlock {
            std::thread::yield_now();
        }
        assert_eq!(stream.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_socket_refuses_instead_of_waiting() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let mut stream = OutputStream::new(writer.as_fd()).unwrap();
        let error = loop {
            if let Err(error) = stream.write(&[0; 9999]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_is_written_where_its_descriptor_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut stream = OutputStream::new(file.as_fd()).unwrap();
        assert!(!stream.must_be_polled());
        stream.write(b"after").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 12);
    }

    #[test]
    fn an_empty_pipe_has_nothing_and_a_closed_one_has_ended() {
        let (reader, writer) = io::pipe().unwrap();
        let mut stream = InputStream::new(reader.as_fd()).unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        // As above, for the writer's end.
        let end = loop {
            match stream.read(&mut [0; 4]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        assert_eq!(end, 0);
    }
}
