//! The files of a volume's snapshots, as bytes.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};

use super::frames::{Head, MOST_PIECE};
use super::parts::has_room;
use crate::fault::{Context, Fault, Result};

/// So many bytes are made stable at once; a copy that was cut goes on behind those.
pub const STEP: u64 = 16 << 20;

/// A file that is sent.
pub struct Source {
    file: File,
    path: PathBuf,
    /// What is said of it.
    pub head: Head,
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, number: u32) -> Result<Self> {
        let file = File::open(path).context(path.display())?;
        let found = file.metadata().context(path.display())?;
        // A file that takes its place may get its number in the file system, and its length, but was written at another time.
        let time = i128::from(found.mtime()).saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec().into());
        let tag = format!("{:x}-{:x}-{time:x}", found.ino(), found.len());
        Ok(Self { file, path: path.to_owned(), head: Head { file: number, len: found.len(), tag } })
    }

    /// Gives each piece from a byte on that is not in a hole, in their order.
    ///
    /// # Errors
    /// It cannot be read; those of `give`.
    pub fn pieces(&self, from: u64, mut give: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let named = || self.path.display().to_string();
        let mut room = vec![0; MOST_PIECE];
        let mut at = from;
        while at < self.head.len {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error).context(named()),
            };
            let stop = seek(&self.file, SeekFrom::Hole(start)).context(named())?.min(self.head.len);
            at = start;
            while at < stop {
                let len = room.len().min(usize::try_from(stop.saturating_sub(at)).unwrap_or(usize::MAX));
                let piece = room.get_mut(..len).unwrap_or_default();
                self.file.read_exact_at(piece, at).context(named())?;
                give(at, piece)?;
                at = at.saturating_add(len as u64);
            }
        }
        Ok(())
    }
}

/// A file that comes.
pub struct Part {
    file: File,
    path: PathBuf,
    head: Head,
    /// What lies before it has come.
    at: u64,
    stable: u64,
}

impl Part {
    /// Goes on with a file, or begins it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(path: PathBuf, head: Head) -> Result<Self> {
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let file = file.context(path.display())?;
        // What came last before a host lost its power may not be there. What lies before the step of the last piece was synced before that was written.
        let at = file.metadata().context(path.display())?.len().saturating_sub(MOST_PIECE as u64);
        let at = at.saturating_sub(at.checked_rem(STEP).unwrap_or_default()).min(head.len);
        file.set_len(at).context(path.display())?;
        Ok(Self { file, path, head, at, stable: at })
    }

    /// From which byte on it is to be sent.
    pub fn from(&self) -> u64 {
        self.at
    }

    /// Writes a piece behind those before it.
    ///
    /// # Errors
    /// It lies elsewhere, or the disk is full, or nearly so.
    pub fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let end = at.checked_add(bytes.len() as u64).filter(|end| at >= self.at && *end <= self.head.len);
        let Some(end) = end else {
            let message = format!("a piece at byte {at}; allowed are {} to {}", self.at, self.head.len);
            return Err(Fault::new(message));
        };
        if end / STEP > self.stable / STEP {
            self.file.sync_data().context(self.path.display())?;
            self.stable = self.at;
        }
        has_room(&self.file, bytes.len() as u64)?;
        self.file.write_all_at(bytes, at).context(self.path.display())?;
        self.at = end;
        Ok(())
    }

    /// All has come: the file gets its name, and is stable.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn end(self, name: &Path) -> Result<()> {
        self.file.set_len(self.head.len).and_then(|()| self.file.sync_all()).context(self.path.display())?;
        std::fs::rename(&self.path, name).context(name.display())?;
        sync_folder(name)
    }
}

/// Makes the names in a file's folder stable.
///
/// # Errors
/// Those of the disk.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).context(folder.display())
}
