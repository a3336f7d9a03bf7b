//! Files that have no name until they are whole.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file in a folder that has no name until it is [given](give_name) one, and is gone if it gets none, however this process ends.
///
/// # Errors
/// Not each file system has such files, and without `/proc` they get no name.
pub(crate) fn nameless_file(folder: &Path, mode: u32) -> io::Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(mode).open(folder)?;
    std::fs::metadata(path_of(&file)).map(|_| file)
}

/// Gives a nameless file a name, which must be free, in the folder that it was made in.
pub(crate) fn give_name(file: &File, name: &Path) -> io::Result<()> {
    let (from, to) = (CString::new(path_of(file))?, CString::new(name.as_os_str().as_bytes())?);
    let here = libc::AT_FDCWD;
    // SAFETY: the paths are texts with a NUL behind them.
    match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
