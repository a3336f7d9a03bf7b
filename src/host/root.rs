//! The files by which Linux tells of itself, read so that none of them can hold the reader up.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::sys::open_disk;

/// No file that is read here as a whole is near this. Of longer ones, only the beginning matters, or they are not what they should be.
const MOST_BYTES: u64 = 64 << 10;

/// No directory that is listed here as a whole has nearly as many entries.
const MOST_ENTRIES: usize = 256;

/// The host's root directory, or a copy of a part of it.
pub(super) struct Root(PathBuf);

/// What a file says, or why that is not known.
pub(super) type Told = Result<String, String>;

impl Root {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where `path`, which begins with a slash, is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The text of a file, without space around it.
    pub(super) fn text(&self, path: &str) -> Told {
        let text = self.start(path)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(format!("{path} is longer than {MOST_BYTES} bytes"));
        }
        Ok(text.trim().to_owned())
    }

    /// The beginning of a file that may be a long one.
    pub(super) fn start(&self, path: &str) -> Told {
        let mut bytes = Vec::new();
        let read = open(&self.path(path)).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|e| format!("{path} cannot be read: {e}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let unreadable = |e: io::Error| format!("{path} cannot be read: {e}");
        let entries = self.path(path).read_dir().map_err(unreadable)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.take(MOST_ENTRIES).collect::<io::Result<_>>().map_err(unreadable)?;
        names.sort_unstable();
        Ok(names)
    }

    /// How many entries a directory has.
    pub(super) fn count(&self, path: &str) -> Result<usize, String> {
        self.path(path).read_dir().map(Iterator::count).map_err(|e| format!("{path} cannot be read: {e}"))
    }
}

/// Opens a file, and nothing else: reading a FIFO or a device could take for ever.
fn open(path: &Path) -> io::Result<File> {
    let file = open_disk(path, false, false)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_not_taken_for_what_it_should_be() {
        let tree = Tree::new().with("/proc/long", &"1".repeat(MOST_BYTES as usize + 1)).with("/proc/short", " 1\n");
        assert_eq!(tree.root().text("/proc/short").unwrap(), "1");
        assert_eq!(tree.root().text("/proc/long").unwrap_err(), "/proc/long is longer than 65536 bytes");
        assert_eq!(tree.root().start("/proc/long").unwrap().len(), 65537);
    }

    #[test]
    fn what_is_no_file_is_not_read_and_holds_nobody_up() {
        let tree = Tree::new().with("/proc/directory/file", "");
        let fifo = tree.root().path("/proc/fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", tree.root().path("/proc/endless")).unwrap();
        for name in ["/proc/fifo", "/proc/endless", "/proc/directory"] {
            assert_eq!(tree.root().text(name).unwrap_err(), format!("{name} cannot be read: it is no file"));
        }
        let error = tree.root().text("/proc/missing").unwrap_err();
        assert!(error.starts_with("/proc/missing cannot be read: No such file"), "{error}");
    }

    #[test]
    fn a_directory_is_listed_in_order_and_not_without_end() {
        let mut tree = Tree::new().with("/sys/b", "").with("/sys/a", "");
        assert_eq!(tree.root().names("/sys").unwrap(), ["a", "b"]);
        for number in 0..MOST_ENTRIES {
            tree = tree.with(&format!("/sys/{number}"), "");
        }
        assert_eq!(tree.root().names("/sys").unwrap().len(), MOST_ENTRIES);
        assert_eq!(tree.root().count("/sys").unwrap(), MOST_ENTRIES + 2);
        assert!(tree.root().names("/none").unwrap_err().starts_with("/none cannot be read: No such file"));
    }
}
