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
            if let Some(turn) = Self::of(open_plain(path, true)?, path)? {
                return Ok(turn);
            }
            if until.is_none_or(|until| Instant::now() >= until) {
                return Err(refused(format!("others have had it locked for {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Locks a file, unless somebody else has, or has put another one in its place since it was opened: then the lock keeps nobody away.
    fn of((file, about): (File, Metadata), path: &Path) -> Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) if is_in_place(path, &about) => Ok(Some(Self { file, about })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => {
                Err(refused("it cannot be locked, and what others write could be lost").with_source(e))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_file_that_was_replaced_is_no_turn() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("store"), folder.path().join("new"));
        fs::write(&path, "old").unwrap();
        let old = open_plain(&path, true).unwrap();
        fs::write(&new, "new").unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(Turn::of(old, &path).unwrap().is_none());
        let turn = Turn::wait_for(&path).unwrap();
        assert!(Turn::of(open_plain(&path, true).unwrap(), &path).unwrap().is_none(), "somebody has it");
        drop(turn);
        assert!(Turn::of(open_plain(&path, true).unwrap(), &path).unwrap().is_some());
        fs::remove_file(&path).unwrap();
        assert!(Turn::wait_for(&path).is_err(), "there is nothing to wait for");
    }
}
