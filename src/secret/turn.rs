//! Writers to one file that is replaced, one after the other.

use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::refused;
use crate::error::{Error, Result};
use crate::sys::open_disk;

/// How long a writer waits for others. Each takes as long as its disk takes to make a small file stable.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// The right to replace a file, which nobody else has: the lock (`flock`) of the file that is in its place. It holds between threads as
/// between processes.
pub(super) struct Turn {
    pub(super) file: File,
    pub(super) about: Metadata,
}

impl Turn {
    pub(super) fn wait_for(path: &Path) -> Result<Self> {
        let until = Instant::now().checked_add(PATIENCE);
        loop {
            let (file, about) = open_plain(path, true)?;
            match file.try_lock() {
                // The one who had it may have replaced the file: then the lock is that of a file which is gone.
                Ok(()) if is_in_place(path, &about) => return Ok(Self { file, about }),
                Ok(()) | Err(TryLockError::WouldBlock) if until.is_some_and(|until| Instant::now() < until) => {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {
                    let message = format!("others have had it locked for {} s", PATIENCE.as_secs());
                    return Err(refused(message));
                }
                Err(TryLockError::Error(e)) => {
                    return Err(refused("it cannot be locked, and what others write could be lost").with_source(e));
                }
            }
        }
    }
}

impl Drop for Turn {
    /// Also if a child process has a copy of the descriptor for a moment.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn is_in_place(path: &Path, about: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (about.dev(), about.ino()))
}

/// Opens a file, and never waits for the other end of a FIFO.
pub(super) fn open_plain(path: &Path, write: bool) -> Result<(File, Metadata)> {
    let how = if write { "opened for writing" } else { "read" };
    let failed = |e| -> Error { refused(format!("it cannot be {how}")).with_source(e) };
    let file = open_disk(path, write, false).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(refused("it is no file, but a folder, a pipe or a device"));
    }
    Ok((file, about))
}
