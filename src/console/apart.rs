//! Keeps files that are renamed apart from the files of other sinks.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::ConsoleFile;
use crate::error::{Error, ErrorKind, Result};

/// Where a sink's file is.
struct Place<'a> {
    file: &'a ConsoleFile,
    /// The folder, without links, and the name in it, if there is such a folder.
    name: Option<(PathBuf, OsString)>,
    /// Device and inode, if there is such a file already.
    identity: Option<(u64, u64)>,
}

/// Refuses a file that is limited in size if another sink of the console has the same file, or one that would be replaced when
/// the first is renamed. Opens nothing.
pub(super) fn check<'a>(files: impl Iterator<Item = &'a ConsoleFile>) -> Result<()> {
    let places: Vec<_> = files.map(Place::of).collect();
    for (index, place) in places.iter().enumerate().filter(|(_, place)| place.file.max_bytes.is_some()) {
        let mut others = places.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
        if let Some(other) = others.find(|other| place.is_same(other) || place.replaces(other)) {
            let (path, other) = (place.file.path.display(), other.file.path.display());
            let message = format!(
                "the console's file {path} is limited in size, and so renamed or emptied; another sink of the console \
                 cannot be the same file or one of its older ones, as {other} is"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
    }
    Ok(())
}

impl<'a> Place<'a> {
    fn of(file: &'a ConsoleFile) -> Self {
        let identity = file.path.metadata().ok().filter(Metadata::is_file).map(|found| (found.dev(), found.ino()));
        // Links are followed to the file that is opened.
        let path = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
        Self { file, name: name_of(&path), identity }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.identity.is_some() && self.identity == other.identity || self.name.is_some() && self.name == other.name
    }

    /// Whether the other one has the name that an older file gets.
    fn replaces(&self, other: &Self) -> bool {
        let (Some((folder, name)), Some((other_folder, other))) = (&self.name, &other.name) else { return false };
        let number = other.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
        let number = number.and_then(|number| OsStr::from_bytes(number).to_str()?.parse::<u32>().ok());
        folder == other_folder && number.is_some_and(|number| (1..=self.file.keep).contains(&number))
    }
}

fn name_of(path: &Path) -> Option<(PathBuf, OsString)> {
    let path = std::path::absolute(path).ok()?;
    Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_renamed_is_refused_to_another_sink_under_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("there"), "").unwrap();
        std::fs::hard_link(at("there"), at("hard")).unwrap();
        symlink(at("there"), at("soft")).unwrap();
        let check = |path: &str, other: &str| {
            let (file, other) = (ConsoleFile::new(at(path)).rotate(4096, 3), ConsoleFile::new(at(other)));
            let (forth, back) = (check([&file, &other].into_iter()), check([&other, &file].into_iter()));
            assert_eq!(forth.is_err(), back.is_err());
            forth
        };
        let same = [
            ("there", "there"),
            ("there", "hard"),
            ("there", "soft"),
            ("soft", "there"),
            ("new", "new"),
            ("new", "sub/../new"),
            ("new", "new.3"),
            ("there", "there.1"),
        ];
        for (path, other) in same {
            let error = check(path, other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().ends_with(&format!("as {} is", at(other).display())), "{error}");
        }
        for (path, other) in [
            ("there", "new"),
            ("new", "new.4"),
            ("new", "new.0"),
            ("new", "new.old"),
            ("new", "new1"),
            ("new", "sub/new"),
        ] {
            check(path, other).unwrap();
        }
        assert!(!at("new").exists());
    }

    #[test]
    fn what_is_never_renamed_may_be_given_to_several_sinks() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConsoleFile::new(folder.path().join("log")).append(true);
        check([&file, &file].into_iter()).unwrap();
        let null = ConsoleFile::new("/dev/null");
        check([&null, &null, &ConsoleFile::new("/nowhere/log").rotate(4096, 1)].into_iter()).unwrap();
    }
}
