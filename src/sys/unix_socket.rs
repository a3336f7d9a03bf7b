//! Unix sockets as the standard library does not make them: non-blocking from the start, private, and looked into without reading.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::ptr;

/// The longest path of a socket in bytes: the kernel has 108, of which one is for the end.
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// How many clients may wait to be accepted, as far as the host allows it (net.core.somaxconn).
const BACKLOG: libc::c_int = 128;
const NON_BLOCKING_STREAM: libc::c_int = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// Makes two streams that are connected to each other. Neither ever blocks.
pub(crate) fn non_blocking_pair() -> io::Result<(UnixStream, UnixStream)> {
    let mut fds = [-1; 2];
    // SAFETY: the pointer leads to room for two descriptors, as the call demands.
    check(unsafe { libc::socketpair(libc::AF_UNIX, NON_BLOCKING_STREAM, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the kernel has just opened both descriptors, and nobody else knows them.
    let [ours, theirs] = fds.map(|fd| unsafe { UnixStream::from_raw_fd(fd) });
    Ok((ours, theirs))
}

/// Connects to the socket at `path`. The stream never blocks, and connecting does not wait for the other side to accept.
///
/// # Errors
/// What the host reports: `NotFound` if there is no socket, `ConnectionRefused` if nobody listens, `WouldBlock` if too many wait to be
/// accepted.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let (socket, (address, len)) = (socket()?, address_of(path)?);
    // SAFETY: the pointer leads to an address that outlives the call, and `len` is its length.
    check(unsafe { libc::connect(socket.as_raw_fd(), ptr::from_ref(&address).cast(), len) })?;
    Ok(socket.into())
}

/// Makes a socket at `path`, which only this user may connect to, and listens there. Accepting never blocks.
///
/// # Errors
/// What the host reports: `AddrInUse` if there is something at that path.
pub(crate) fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let (socket, (address, len)) = (socket()?, address_of(path)?);
    // The kernel gives the file the mode of the socket, so that it never has another one.
    // SAFETY: plain integers, and an open descriptor.
    check(unsafe { libc::fchmod(socket.as_raw_fd(), 0o600) })?;
    // SAFETY: the pointer leads to an address that outlives the call, and `len` is its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), len) })?;
    // SAFETY: plain integers, and an open descriptor.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket.into())
}

/// Accepts a client; its stream never blocks.
///
/// # Errors
/// What the host reports: `WouldBlock` if there is none.
pub(crate) fn accept_now(listener: &UnixListener) -> io::Result<UnixStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: an open descriptor; null pointers say that nobody asks for the client's address.
    let fd = check(unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) })?;
    // SAFETY: the kernel has just opened the descriptor, and nobody else knows it.
    Ok(unsafe { UnixStream::from_raw_fd(fd) })
}

/// Copies what there is to read, and leaves it there. Never blocks; none is the end.
///
/// # Errors
/// What the host reports: `WouldBlock` if there is nothing yet.
pub(crate) fn peek(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of one slice, which is ours alone.
    let len = unsafe { libc::recv(stream.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, NON_BLOCKING_STREAM, 0) })?;
    // SAFETY: the kernel has just opened the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address_of(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_SOCKET_PATH || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut address = libc::sockaddr_un { sun_family: 0, sun_path: [0; 108] };
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Ok((address, libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_un>()).unwrap_or_default()))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_client_is_accepted_and_looked_at_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(connect_now(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let listener = listen_privately(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen_privately(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(accept_now(&listener).unwrap_err().kind(), ErrorKind::WouldBlock);
        let mut client = connect_now(&path).unwrap();
        let mut server = accept_now(&listener).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(peek(&server, &mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.write_all(b"hello").unwrap();
        assert_eq!(peek(&server, &mut bytes).unwrap(), 5);
        assert_eq!(server.read(&mut bytes).unwrap(), 5);
        assert_eq!(server.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(client);
        assert_eq!(peek(&server, &mut bytes).unwrap(), 0);
        drop(listener);
        assert_eq!(connect_now(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn paths_that_fit_no_socket_are_refused() {
        let long = "x".repeat(MAX_SOCKET_PATH + 1);
        for path in ["", "a\0b", &long] {
            assert_eq!(connect_now(Path::new(path)).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
