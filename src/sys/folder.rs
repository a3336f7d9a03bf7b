//! A folder that is used by its descriptor, also when no path leads to it any more.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::namespace::open_path;

/// The folder that a path lies in; a bare name lies in the present one.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // For what is no folder, this fails as all that is done in it would.
        let folder = Self(open_path(path)?);
        open_at(&folder.0, ".", libc::O_PATH | libc::O_DIRECTORY).map(Self)
    }

    /// Makes a folder in it, which must not be there.
    pub(crate) fn make(&self, name: &str) -> io::Result<Self> {
        let path = CString::new(name)?;
        // SAFETY: the descriptor is open, and the path is a text with a NUL behind it.
        check(unsafe { libc::mkdirat(self.0.as_raw_fd(), path.as_ptr(), 0o755) })?;
        open_at(&self.0, name, libc::O_PATH | libc::O_DIRECTORY).map(Self)
    }

    /// Opens a file in it that is there.
    pub(crate) fn file(&self, name: &str, write: bool) -> io::Result<File> {
        open_at(&self.0, name, if write { libc::O_RDWR } else { libc::O_RDONLY }).map(File::from)
    }

    /// A short path of what has this name in it, for as long as the folder is open. It leads nowhere if the process has no `/proc`.
    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }

    /// Removes an empty folder from it.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let path = CString::new(name)?;
        // SAFETY: the descriptor is open, and the path is a text with a NUL behind it.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), path.as_ptr(), libc::AT_REMOVEDIR) })
    }

    /// The number of the kind of file system that it is on (`linux/magic.h`).
    pub(crate) fn file_system(&self) -> io::Result<u64> {
        // SAFETY: all-zero bytes are a valid statfs.
        let mut found: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and the pointer is valid for the call.
        check(unsafe { libc::fstatfs(self.0.as_raw_fd(), &mut found) })?;
        Ok(found.f_type.cast_unsigned())
    }
}

fn open_at(folder: &OwnedFd, name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(name)?;
    // SAFETY: the descriptor is open, and the path is a text with a NUL behind it.
    let opened = unsafe { libc::openat(folder.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC) };
    check(opened)?;
    // SAFETY: the kernel just made the descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_is_used_when_its_path_leads_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (before, after) = (place.path().join("before"), place.path().join("after"));
        fs::create_dir(&before).unwrap();
        let folder = Folder::open(&before).unwrap();
        fs::rename(&before, &after).unwrap();
        let inner = folder.make("inner").unwrap();
        fs::write(after.join("inner/file"), "text").unwrap();
        assert_eq!(io::read_to_string(inner.file("file", false).unwrap()).unwrap(), "text");
        assert_eq!(inner.file("other", true).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(folder.make("inner").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(folder.remove("inner").unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        fs::remove_file(after.join("inner/file")).unwrap();
        folder.remove("inner").unwrap();
        assert_eq!(fs::read_dir(&after).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Folder::open(file.path()).err().unwrap().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(Folder::open(Path::new("/nowhere")).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
