//! A file that is written, and takes its place once it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::refused;
use crate::error::Result;
use crate::sys::{folder_of, give_name, nameless_file, open_disk, random_bytes, try_lock};

/// Only the owner reads what a guest had in its memory.
const MODE: u32 = 0o600;

/// How often another process may take a new file for one that is left over.
const ATTEMPTS: u32 = 8;

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
    /// Begins a file for a place, and removes what processes that were killed have left beside it.
    pub(super) fn new(place: &Path, sync: bool) -> Result<Self> {
        let failed = |e: io::Error| refused("it cannot be written").with_source(e);
        if place.file_name().is_none() {
            return Err(refused("its path has no file's name"));
        }
        // Now, while nothing was replaced yet.
        let folder = if sync { Some(File::open(folder_of(place)).map_err(failed)?) } else { None };
        remove_left_over(place);
        let part = match nameless_file(folder_of(place), MODE) {
            Ok(file) => is_ours(&file).and_then(|_| Ok(Self { file, beside: beside(place)?, is_named: false, folder })),
            Err(_) => Self::named(place, folder),
        };
        part.map_err(failed)
    }

    fn named(place: &Path, folder: Option<File>) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let beside = beside(place)?;
            let file = File::options().read(true).write(true).create_new(true).mode(MODE).open(&beside)?;
            if is_ours(&file)? {
                return Ok(Self { file, beside, is_named: true, folder });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
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

/// A file in this folder that has no name, or has it no longer.
#[cfg(feature = "volume")]
pub(super) fn nameless(folder: &Path) -> io::Result<File> {
    nameless_file(folder, MODE).or_else(|_| Part::named(&folder.join("ram"), None)?.file.try_clone())
}

/// Locks a file that was just made, for as long as it is open: others do not take it for one that is left over. Says whether nobody was
/// quicker.
fn is_ours(file: &File) -> io::Result<bool> {
    match try_lock(file, true) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // Without locks, nobody removes anything. One without a name yet is nobody else's.
        _ => Ok(file.metadata().is_ok_and(|about| about.nlink() > 0)),
    }
}

/// Removes the files that were begun for a place and whose process is gone, as far as that is allowed.
fn remove_left_over(place: &Path) {
    let (Ok(entries), Some(name)) = (fs::read_dir(folder_of(place)), place.file_name()) else { return };
    for entry in entries.flatten() {
        let is_part = is_part_of(&entry.file_name(), name) && entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_part && open_disk(&entry.path(), true, false).is_ok_and(|file| try_lock(&file, true).is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

const DIGITS: usize = 16;

fn is_part_of(part: &OsStr, name: &OsStr) -> bool {
    let middle = part.as_bytes().strip_prefix(b".").and_then(|rest| rest.strip_prefix(name.as_bytes()));
    let digits = middle.and_then(|rest| rest.strip_prefix(b".")).and_then(|rest| rest.strip_suffix(b".part"));
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit))
}

fn beside(place: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    random_bytes(&mut random)?;
    let mut hidden = OsString::from(".");
    hidden.push(place.file_name().unwrap_or_default());
    hidden.push(format!(".{:0DIGITS$x}.part", u64::from_ne_bytes(random)));
    Ok(place.with_file_name(hidden))
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
        let named = || Part::named(&place, None).unwrap();
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

    #[test]
    fn what_a_process_that_was_killed_has_left_is_removed_and_what_is_being_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("vm");
        let path = |name: &str| folder.path().join(name);
        let kept = [".vm.0123456789abcde.part", ".vm.0123456789abcdeg.part", ".vm2.0123456789abcdef.part", "vm.part"];
        let left = [".vm.0123456789abcdef.part", ".vm.fedcba9876543210.part"];
        kept.iter().chain(&left).for_each(|name| fs::write(path(name), "part").unwrap());
        let being_written = Part::named(&place, None).unwrap();
        let mut part = Part::new(&place, true).unwrap();
        assert!(kept.iter().all(|name| path(name).exists()) && !left.iter().any(|name| path(name).exists()));
        part.file.write_all(b"text").unwrap();
        being_written.put_in_place(&place).unwrap();
        part.put_in_place(&place).unwrap();
        assert_eq!((names(folder.path()).len(), fs::read_to_string(&place).unwrap()), (kept.len() + 1, "text".into()));
    }
}
