//! The Unix socket for other programs of the host.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Folder, MAX_SOCKET_PATH, accept_now, connect_now, folder_of, listen_privately};

/// The longest first line of a client: `CONNECT` and a port.
pub(super) const MAX_GREETING: usize = 32;

/// What stands behind the path of the socket of a port.
const LONGEST_PORT: &str = "_4294967295";

/// Listens at a path. Its file is removed with it.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The folder, if paths in it are too long for the kernel to connect to.
    folder: Option<Folder>,
    /// By which its file is known: another one may have come to its path.
    file: Option<(u64, u64)>,
}

/// What a client has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It wants a port of the guest. Its line has so many bytes.
    Connect {
        port: u32,
        len: usize,
    },
    /// Its line has no end yet.
    Incomplete,
    Wrong,
}

impl Socket {
    /// Makes it at `path`.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| {
            let why = match e.kind() {
                io::ErrorKind::AddrInUse => "there is something at this path already: remove it if no VM uses it",
                io::ErrorKind::NotFound => "its folder does not exist",
                _ => "the host refuses",
            };
            let message = format!("cannot make the Unix socket {}: {why}", path.display());
            Error::new(ErrorKind::Vsock, message).with_source(e)
        };
        // Its folder may be reached by another way later, or the process may go to another one.
        let canonical = folder_of(path).canonicalize().map_err(failed)?;
        let whole = path.file_name().map_or_else(|| path.to_owned(), |name| canonical.join(name));
        let is_long = whole.as_os_str().len().saturating_add(LONGEST_PORT.len()) > MAX_SOCKET_PATH;
        let folder = is_long.then(|| Folder::open(&canonical)).transpose().map_err(failed)?;
        folder.as_ref().map_or(Ok(()), |folder| check_way(folder, path))?;
        let listener = listen_privately(path).map_err(failed)?;
        let path = whole;
        let file = path.symlink_metadata().ok().map(|file| (file.dev(), file.ino()));
        Ok(Self { listener, path, folder, file })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(super) fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Accepts a client, if there is one.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        accept_now(&self.listener)
    }

    /// Connects to the program that serves a port of the host.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let path = PathBuf::from(path);
        match (&self.folder, path.file_name()) {
            (Some(folder), Some(name)) if path.as_os_str().len() > MAX_SOCKET_PATH => {
                connect_now(&folder.path_of(name))
            }
            _ => connect_now(&path),
        }
    }

    /// Removes its file, if that is still its own.
    pub(super) fn remove(&mut self) {
        let Some(own) = self.file.take() else { return };
        if self.path.symlink_metadata().is_ok_and(|file| (file.dev(), file.ino()) == own) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses a socket beside which those of ports could not be reached, not even by the folder's descriptor.
fn check_way(folder: &Folder, path: &Path) -> Result<()> {
    let refused = |why: String| {
        let shown = path.display();
        Err(Error::new(ErrorKind::Vsock, format!("cannot make the Unix socket {shown}: {why}; choose a shorter path")))
    };
    let way = folder.path_of(path.file_name().unwrap_or_default());
    let len = way.as_os_str().len().saturating_add(LONGEST_PORT.len());
    if len > MAX_SOCKET_PATH {
        return refused(format!(
            "its path is long, and by the descriptor of its folder those of the host's ports would have paths of up to {len} bytes, allowed are {MAX_SOCKET_PATH}"
        ));
    }
    match folder.path_of(OsStr::new(".")).metadata() {
        Ok(_) => Ok(()),
        Err(why) => refused(format!("its path is long, and it takes /proc to reach those of the host's ports: {why}")),
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Greeting {
    /// Reads what came first.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() < MAX_GREETING { Self::Incomplete } else { Self::Wrong };
        };
        let line = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let digits = line.strip_prefix("CONNECT ").filter(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
        let port = digits.and_then(|digits| digits.parse().ok());
        port.map_or(Self::Wrong, |port| Self::Connect { port, len: end.saturating_add(1) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    #[test]
    fn a_greeting_names_a_port() {
        assert_eq!(Greeting::parse(b"CONNECT 52\nhello"), Greeting::Connect { port: 52, len: 11 });
        assert_eq!(Greeting::parse(b"CONNECT 4294967295\r\n"), Greeting::Connect { port: u32::MAX, len: 20 });
        for bytes in [b"".as_slice(), b"CONN", b"CONNECT 52"] {
            assert_eq!(Greeting::parse(bytes), Greeting::Incomplete);
        }
        let lines =
            ["", "CONNECT", "CONNECT ", "CONNECT x", "CONNECT +52", "CONNECT 52 ", "CONNECT 52\r\r", "connect 52"];
        let lines = lines.map(|line| format!("{line}\n"));
        let long = ["CONNECT 4294967296\n", &"C".repeat(MAX_GREETING)];
        for bytes in lines.iter().map(String::as_str).chain(long).map(str::as_bytes) {
            assert_eq!(Greeting::parse(bytes), Greeting::Wrong);
        }
    }

    #[test]
    fn a_port_is_reached_in_a_folder_whose_path_is_too_long_for_a_socket() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("x".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        // As a program has it that works in that folder.
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&deep, &link).unwrap();
        let socket = Socket::new(&link.join("socket")).unwrap();
        let served = UnixListener::bind(link.join("socket_4294967295")).unwrap();
        std::fs::remove_file(&link).unwrap();
        socket.connect(u32::MAX).unwrap();
        served.accept().unwrap();
        assert_eq!(socket.connect(1).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(socket);
        assert!(!deep.join("socket").exists());
    }

    #[test]
    fn a_socket_whose_ports_could_not_be_reached_is_refused_and_not_made() {
        let place = tempfile::tempdir().unwrap();
        // With `/proc/self/fd/N/` before it and a port behind it, it is one byte too long.
        let name = "x".repeat(MAX_SOCKET_PATH + 1 - "/proc/self/fd/0/".len() - LONGEST_PORT.len());
        let path = place.path().join(&name);
        let refused = Socket::new(&path).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Vsock);
        assert!(refused.to_string().contains("bytes, allowed are 107; choose a shorter path"), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn the_file_is_removed_unless_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = Socket::new(&path).unwrap();
        assert!(path.metadata().unwrap().file_type().is_socket());
        let error = Socket::new(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Vsock);
        assert!(error.to_string().contains("remove it if no VM uses it"), "{error}");
        drop(socket);
        assert!(!path.exists());
        let socket = Socket::new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(socket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
        let error = Socket::new(&folder.path().join("none/socket")).err().unwrap();
        assert!(error.to_string().ends_with("its folder does not exist"), "{error}");
    }
}
