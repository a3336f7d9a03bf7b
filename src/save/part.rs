//! A file that is written, and takes its place once it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::refused;
use crate::error::Result;
use crate::sys::{give_name, nameless_file, random_bytes};

/// Only the owner reads what a guest had in its memory.
const MODE: u32 = 0o600;

/// A file that is written. If it is dropped before it is put in place, nothing of it is left.
pub(super) struct Part {
    pub(super) file: File,
    /// A name in the folder of its place that no other save has, also one to the same place.
    beside: PathBuf,
    /// Whether it has that name already: the file system may have no files without one.
    is_named: bool,
    /// The folder, if all is to be on storage.
    folder: Option<File>,
}

impl Part {
    /// Begins a file for a place.
    pub(super) fn new(place: &Path, sync: bool) -> Result<Self> {
        let failed = |e: io::Error| refused("it cannot be written").with_source(e);
        let (beside, parent) = (beside(place)?, parent(place));
        // Now, while nothing was replaced yet.
        let folder = if sync { Some(File::open(parent).map_err(failed)?) } else { None };
        match nameless_file(parent, MODE) {
            Ok(file) => Ok(Self { file, beside, is_named: false, folder }),
            Err(_) => Self::named(beside, folder).map_err(failed),
        }
    }

    fn named(beside: PathBuf, folder: Option<File>) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(MODE).open(&beside)?;
        Ok(Self { file, beside, is_named: true, folder })
    }

    /// Gives it its place; a file that is there is replaced at once. It is on storage before, if it is to be, and so is its name afterwards.
    pub(super) fn put_in_place(mut self, place: &Path) -> io::Result<()> {
        if self.folder.is_some() {
            self.file.sync_all()?;
        }
        if !self.take_free(place)? {
            fs::rename(&self.beside, place)?;
            self.is_named = false;
        }
        self.folder.as_ref().map_or(Ok(()), File::sync_all)
    }

    /// Takes a place that is free, if the file has no name; has a name of its own otherwise, and says no.
    fn take_free(&mut self, place: &Path) -> io::Result<bool> {
        if self.is_named {
            return Ok(false);
        }
        match give_name(&self.file, place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            given => return given.map(|()| true),
        }
        give_name(&self.file, &self.beside)?;
        self.is_named = true;
        Ok(false)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_named {
            let _ = fs::remove_file(&self.beside);
        }
    }
}

fn beside(place: &Path) -> Result<PathBuf> {
    let Some(name) = place.file_name() else { return Err(refused("its path has no file's name")) };
    let mut random = [0; 8];
    random_bytes(&mut random).map_err(|e| refused("the host has no random bytes for its name").with_source(e))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{:016x}.part", u64::from_ne_bytes(random)));
    Ok(place.with_file_name(hidden))
}

fn parent(place: &Path) -> &Path {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_has_no_name_until_it_is_whole_so_that_a_process_that_is_killed_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("vm");
        for text in ["first", "second"] {
            let before = names(folder.path());
            let mut part = Part::new(&place, true).unwrap();
            part.file.write_all(text.as_bytes()).unwrap();
            assert_eq!(names(folder.path()), before);
            part.put_in_place(&place).unwrap();
            assert_eq!((names(folder.path()), fs::read_to_string(&place).unwrap()), (vec!["vm".into()], text.into()));
        }
    }

    #[test]
    fn without_such_files_it_has_a_name_of_its_own_which_is_gone_if_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("vm");
        let named = || Part::named(beside(&place).unwrap(), None).unwrap();
        let mut part = named();
        part.file.write_all(b"text").unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        drop(named());
        part.put_in_place(&place).unwrap();
        assert_eq!((names(folder.path()), fs::read_to_string(&place).unwrap()), (vec!["vm".into()], "text".into()));
        fs::create_dir(folder.path().join("folder")).unwrap();
        for part in [named(), Part::new(&place, false).unwrap()] {
            part.put_in_place(&folder.path().join("folder")).unwrap_err();
        }
        assert_eq!(names(folder.path()).len(), 2);
    }
}
