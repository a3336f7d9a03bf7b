//! A file that is replaced at once: after a crash at any moment it is the old one or the new one.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::files::{hidden, new_file};
use crate::sys::folder_of;

/// What it takes, so that tests can stop at each step.
pub(super) trait Steps {
    /// Begins a new file beside the old one.
    fn begin(&mut self) -> io::Result<()>;
    /// Writes to the new file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Brings the new file to storage.
    fn sync(&mut self) -> io::Result<()>;
    /// Puts the new file in the place of the old one.
    fn take_place(&mut self) -> io::Result<()>;
    /// Brings to storage which file is in that place.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Removes the new file.
    fn give_up(&mut self);
}

/// Replaces a file. If it fails, the old one is there still. It is on storage once the folder is, too.
pub(super) fn replace(steps: &mut impl Steps, bytes: &[u8]) -> io::Result<()> {
    steps.begin()?;
    let placed = steps.write(bytes).and_then(|()| steps.sync()).and_then(|()| steps.take_place());
    if placed.is_err() {
        steps.give_up();
    }
    placed
}

/// A file that whoever replaces it has locked, so that nobody else replaces it meanwhile.
pub(super) struct InPlace<'a> {
    place: &'a Path,
    like: &'a Metadata,
    beside: PathBuf,
    folder: File,
    file: Option<File>,
}

impl<'a> InPlace<'a> {
    /// The new file will have the owner and the mode of `like`, the old one.
    pub(super) fn new(place: &'a Path, like: &'a Metadata) -> io::Result<Self> {
        // Now, while nothing was replaced yet.
        let folder = File::open(folder_of(place))?;
        Ok(Self { place, like, beside: hidden(place, "new"), folder, file: None })
    }
}

impl Steps for InPlace<'_> {
    fn begin(&mut self) -> io::Result<()> {
        // What a process that was killed has left there.
        match fs::remove_file(&self.beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = Some(new_file(&self.beside)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        file.write_all(bytes)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (self.like.uid(), self.like.gid()) {
            let (user, group) = (self.like.uid(), self.like.gid());
            let refused = |e: io::Error| {
                let message = format!("the new file cannot be given to its owner, user {user} and group {group}: {e}");
                io::Error::new(e.kind(), message)
            };
            fchown(&file, Some(user), Some(group)).map_err(refused)?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.like.mode() & 0o777))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }

    fn take_place(&mut self) -> io::Result<()> {
        fs::rename(&self.beside, self.place)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn give_up(&mut self) {
        let _ = fs::remove_file(&self.beside);
    }
}

#[cfg(test)]
#[path = "replace_test.rs"]
mod tests;
