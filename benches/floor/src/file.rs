//! A file's place in the page cache.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;

/// Reads the whole file, so that it is in the page cache.
pub fn cache(path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut room = vec![0; 1 << 20];
    while file.read(&mut room)? != 0 {}
    Ok("cached".into())
}

/// Writes the file out, and drops it from the page cache.
pub fn drop_cached(path: &str) -> io::Result<String> {
    let file = File::options().read(true).write(true).open(path)?;
    file.sync_all()?;
    // SAFETY: plain integers.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if error == 0 { Ok("uncached".into()) } else { Err(io::Error::from_raw_os_error(error)) }
}
