//! What the VMs of an app have said.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// So much is read of a file at once, and so long is a line at most.
const PIECE: usize = 16 << 10;
/// So much of an old log is told at first.
const BACK: u64 = 256 << 10;

/// A line of a log.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Log {
    /// The VM's number in its app.
    pub vm: u32,
    /// Without control characters.
    pub line: String,
}

/// Reads the logs of an app, and goes on where it has stopped.
pub struct Tail {
    folder: PathBuf,
    files: BTreeMap<u32, Followed>,
}

struct Followed {
    file: File,
    inode: u64,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

impl Tail {
    /// Begins at what was said last.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, files: BTreeMap::new() }
    }

    /// The lines that are new, VM by VM: those of a few hundred kilobytes of each.
    pub fn read(&mut self) -> Vec<Log> {
        self.read_last(usize::MAX).0
    }

    /// The last of the lines that are new, and how many more there were: guests may have said much.
    pub fn read_last(&mut self, most: usize) -> (Vec<Log>, usize) {
        let mut lines = Lines::of(most);
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|number| number.parse().ok());
            let Some(vm) = number else { continue };
            let followed = match self.files.entry(vm) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let Some(opened) = open(&entry.path(), BACK) else { continue };
                    place.insert(opened)
                }
            };
            followed.lines(vm, &mut lines);
            // The file was renamed to an older one, and another is in its place.
            if entry.metadata().is_ok_and(|found| found.ino() != followed.inode)
                && let Some(next) = open(&entry.path(), u64::MAX)
            {
                *followed = next;
                followed.lines(vm, &mut lines);
            }
        }
        (lines.last.into(), lines.left_out)
    }
}

/// The last lines of some.
struct Lines {
    most: usize,
    last: VecDeque<Log>,
    left_out: usize,
}

impl Lines {
    fn of(most: usize) -> Self {
        Self { most, last: VecDeque::new(), left_out: 0 }
    }

    fn add(&mut self, vm: u32, line: &[u8]) {
        self.last.push_back(Log { vm, line: shown(line) });
        if self.last.len() > self.most {
            self.last.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// The last lines of a log, without control characters; none if it cannot be read.
#[must_use]
pub fn last_lines(path: &Path, most: usize) -> Vec<String> {
    let mut lines = Lines::of(most);
    if let Some(mut followed) = open(path, PIECE as u64) {
        followed.lines(0, &mut lines);
        // One that was cut off by the end of the VM counts as well.
        if !followed.begun.is_empty() {
            lines.add(0, &followed.begun);
        }
    }
    lines.last.into_iter().map(|log| log.line).collect()
}

/// Opens a log at its last `back` bytes.
fn open(path: &Path, back: u64) -> Option<Followed> {
    let mut file = File::open(path).ok()?;
    let found = file.metadata().ok()?;
    file.seek(SeekFrom::Start(found.len().saturating_sub(back))).ok()?;
    Some(Followed { file, inode: found.ino(), begun: Vec::new() })
}

impl Followed {
    fn lines(&mut self, vm: u32, lines: &mut Lines) {
        let mut piece = vec![0; PIECE];
        for _ in 0..BACK.checked_div(PIECE as u64).unwrap_or(0) {
            let Ok(read @ 1..) = self.file.read(&mut piece) else { break };
            for byte in piece.iter().take(read) {
                if *byte == b'\n' || self.begun.len() >= PIECE {
                    lines.add(vm, &std::mem::take(&mut self.begun));
                }
                if *byte != b'\n' {
                    self.begun.push(*byte);
                }
            }
        }
    }
}

/// A guest's line may not move the cursor of the person who reads it.
#[must_use]
pub fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end_matches('\r')
        .chars()
        .map(|letter| if letter == '\t' || !letter.is_control() { letter } else { '\u{fffd}' })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_once_without_control_characters_and_over_a_change_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("3.log");
        let mut file = File::create(&path).unwrap();
        let mut tail = Tail::new(folder.path().to_owned());
        assert!(tail.read().is_empty());
        file.write_all(b"one\r\ntwo \x1b[2J\npart").unwrap();
        let said = |tail: &mut Tail| tail.read().into_iter().map(|log| log.line).collect::<Vec<_>>();
        assert_eq!(said(&mut tail), ["one", "two \u{fffd}[2J"]);
        file.write_all(b"ly\n").unwrap();
        assert_eq!(tail.read(), [Log { vm: 3, line: "partly".into() }]);
        file.write_all(b"last\n").unwrap();
        std::fs::rename(&path, folder.path().join("3.log.1")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(said(&mut tail), ["last", "new"]);
        assert!(said(&mut tail).is_empty());
    }

    #[test]
    fn the_last_lines_of_a_log_are_also_those_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.log");
        assert!(last_lines(&path, 3).is_empty());
        std::fs::write(&path, "one\ntwo\x1b\nthree\ncut o").unwrap();
        assert_eq!(last_lines(&path, 3), ["two\u{fffd}", "three", "cut o"]);
    }

    #[test]
    fn of_a_guest_that_says_much_the_last_lines_are_kept_and_the_others_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("3.log"), "\n".repeat(100_000) + "last\n").unwrap();
        let (lines, left_out) = Tail::new(folder.path().into()).read_last(200);
        assert_eq!((lines.len(), left_out), (200, 100_001 - 200));
        assert_eq!(lines.last().unwrap().line, "last");
    }
}
