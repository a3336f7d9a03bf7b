//! The folder by which the launchers of one network find each other, and this launcher's number in it.
//!
//! Each launcher has the lowest number N that is free: it holds the lock on the file `N.lock`, which holds the network's name, for as long as it lives, and
//! the socket `N` takes what is sent to its VM. The kernel lets a lock go when its process is gone, however that ended, so that whoever gets the lock afterwards removes a socket that
//! nobody has any more, and no two launchers ever have one number.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use vmcell::{Error, ErrorKind};

/// A path of a Unix socket has no more bytes (unix(7)), without the NUL at its end.
const LONGEST_SOCKET: usize = 107;
/// What a host number adds to the folder's path at the most.
const LONGEST_NAME: &str = "/65535";

/// A network's name has no more bytes.
const LONGEST_NETWORK: u64 = 63;

/// A launcher's place in a network.
pub struct Place {
    pub folder: PathBuf,
    /// The number of the launcher, as that of a host.
    pub host: u16,
    /// What is sent to its VM comes here.
    pub socket: UnixDatagram,
    /// Held as long as the place is.
    _lock: File,
}

impl Place {
    /// Takes a place in a folder of this user's, in the network of this name.
    pub fn take(folder: &Path, name: &str) -> vmcell::Result<Self> {
        // Before the folder is made, which nobody would use.
        check_length(&whole(folder))?;
        own(folder)?;
        let failed = |what: &str, e: io::Error| {
            let message = format!("cannot {what} in the folder {} of a network", folder.display());
            Error::new(ErrorKind::Network, message).with_source(e)
        };
        // Whatever becomes of the present folder.
        let folder = folder.canonicalize().map_err(|e| failed("find a place", e))?;
        // Whoever may write beside it may have put a link in its place.
        own(&folder)?;
        check_length(&folder)?;
        for host in 1..=u16::MAX {
            let path = folder.join(format!("{host}.lock"));
            let Some(lock) = lock(&path).map_err(|e| failed("lock a place", e))? else {
                check_name(&path, name).map_err(|e| failed("take a place", e))?;
                continue;
            };
            write_name(&lock, name).map_err(|e| failed("lock a place", e))?;
            let socket = bind(&socket_path(&folder, host)).map_err(|e| failed("make a socket", e))?;
            return Ok(Self { folder, host, socket, _lock: lock });
        }
        let message = format!("all {} places in the folder {} of a network are taken", u16::MAX, folder.display());
        Err(Error::new(ErrorKind::Network, message))
    }

    /// Where the launcher of a host gets what is sent to its VM.
    pub fn socket_of(&self, host: u16) -> PathBuf {
        socket_path(&self.folder, host)
    }
}

/// The path that a folder has once it is made, whichever way leads there.
fn whole(folder: &Path) -> PathBuf {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (above.canonicalize(), folder.file_name()) {
        (Ok(above), Some(name)) => above.join(name),
        // Whoever makes it will say so.
        _ => std::path::absolute(folder).unwrap_or_else(|_| folder.into()),
    }
}

fn check_length(folder: &Path) -> vmcell::Result<()> {
    let longest = folder.as_os_str().len() + LONGEST_NAME.len();
    if longest <= LONGEST_SOCKET {
        return Ok(());
    }
    let message = format!(
        "sockets in the folder {} would have paths of {longest} bytes, allowed are {LONGEST_SOCKET}: choose a shorter one by socket=PATH",
        folder.display()
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

fn socket_path(folder: &Path, host: u16) -> PathBuf {
    folder.join(host.to_string())
}

/// `None` if another launcher has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Says for others which network it is whose place was locked.
fn write_name(mut lock: &File, name: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(name.as_bytes())
}

/// Sees to it that whoever has locked a place is in the same network: those of two networks would never hear of each other. One that has just locked it
/// may not have said it yet.
fn check_name(path: &Path, name: &str) -> io::Result<()> {
    let mut found = String::new();
    File::open(path)?.take(LONGEST_NETWORK).read_to_string(&mut found)?;
    if found.is_empty() || found == name {
        return Ok(());
    }
    Err(io::Error::other(format!("it is that of the network {found:?}, and {name:?} was asked for")))
}

/// Takes the place of a socket that a launcher has left, which the lock says is gone.
fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where the launchers of a network meet if nothing is said: below the user's folder for such things, or else below a folder in /tmp. The folder above it is
/// made here, since nobody else may have a say in it.
pub fn usual_folder(name: &str) -> vmcell::Result<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let above = match runtime {
        Some(runtime) => runtime.join("vmcell"),
        None => PathBuf::from(format!("/tmp/vmcell-{}", rustix::process::geteuid().as_raw())),
    };
    own(&above)?;
    Ok(above.join(name))
}

/// Makes a folder that nobody but this user may use, or sees to it that it is one.
fn own(folder: &Path) -> vmcell::Result<()> {
    let refused = |why: String| {
        let message = format!("the folder {} cannot be that of a network: {why}", folder.display());
        Error::new(ErrorKind::InvalidConfig, message)
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refused("it cannot be made".to_owned()).with_source(e));
        }
        _ => {}
    }
    // Not what a link leads to, which may be another place the next time.
    let found =
        fs::symlink_metadata(folder).map_err(|e| refused("it cannot be looked at".to_owned()).with_source(e))?;
    let (user, mode) = (rustix::process::geteuid().as_raw(), found.mode() & 0o777);
    if !found.is_dir() {
        return Err(refused("it is no folder".to_owned()));
    }
    if found.uid() != user {
        return Err(refused(format!("it belongs to user {}, and this is user {user}", found.uid())));
    }
    if mode & 0o077 != 0 {
        return Err(refused(format!("others may use it (mode {mode:04o}), allowed is 0700")));
    }
    Ok(())
}
