//! A file as a sink: opened when the VM is built, and renamed when it has grown too large.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::target::Target;
use crate::config::ConsoleFile;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Attempt, Stream};

/// A file that was opened, and has not been touched.
pub(super) struct OpenedFile {
    /// As it was given.
    name: String,
    settings: ConsoleFile,
    file: File,
}

pub(super) struct LogFile {
    settings: ConsoleFile,
    stream: Stream,
    /// As far as we wrote it.
    size: u64,
    /// Why the file could not be renamed, if that was not told yet.
    trouble: Option<io::Error>,
}

/// What can be done with the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// So many of them belong into this file.
    Some(usize),
    /// They belong into the next one.
    Next,
}

impl OpenedFile {
    pub(super) fn open(mut settings: ConsoleFile) -> Result<Self> {
        settings.validate()?;
        let given = settings.path;
        // The next ones are to lie beside it, wherever the process works by then, and whichever links lead there.
        settings.path =
            std::path::absolute(&given).and_then(|path| without_links(&path)).map_err(|e| failed(&given, e))?;
        let file = open(&settings.path, true).map_err(|e| failed(&given, e))?;
        let metadata = file.metadata().map_err(|e| failed(&given, e))?;
        if settings.max_bytes.is_some() && !metadata.is_file() {
            let message = format!("{} is to be limited in size, which only a regular file can be", given.display());
            return Err(Error::new(ErrorKind::Console, message));
        }
        Ok(Self { name: given.display().to_string(), settings, file })
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn settings(&self) -> &ConsoleFile {
        &self.settings
    }
}

/// The same path by the folder that it leads to.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize()?.join(name)),
        _ => Ok(path.to_owned()),
    }
}

fn failed(path: &Path, cause: io::Error) -> Error {
    let message = format!("cannot open {} for the console's output", path.display());
    Error::new(ErrorKind::Console, message).with_source(cause)
}

impl LogFile {
    #[cfg(test)]
    pub(super) fn open(settings: ConsoleFile) -> Result<Self> {
        Self::new(OpenedFile::open(settings)?)
    }

    /// Begins to write, with an empty file unless it is to be added to.
    pub(super) fn new(OpenedFile { settings, file, .. }: OpenedFile) -> Result<Self> {
        let refused = |e: io::Error| failed(&settings.path, e);
        let metadata = file.metadata().map_err(refused)?;
        let mut size = metadata.len();
        if metadata.is_file() && !settings.append {
            file.set_len(0).map_err(refused)?;
            size = 0;
        }
        let stream = Stream::over(file).map_err(|e| refused(io::Error::other(e)))?;
        Ok(Self { stream, size, settings, trouble: None })
    }

    fn fit(&self, bytes: &[u8]) -> Fit {
        let Some(max_bytes) = self.settings.max_bytes else { return Fit::Some(bytes.len()) };
        let room = usize::try_from(max_bytes.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let Some(fitting) = bytes.get(..room).filter(|_| room < bytes.len()) else { return Fit::Some(bytes.len()) };
        match fitting.iter().rposition(|byte| *byte == b'\n') {
            Some(end_of_line) => Fit::Some(end_of_line.saturating_add(1)),
            None if self.size == 0 => Fit::Some(room),
            None => Fit::Next,
        }
    }

    fn begin_next(&mut self) -> io::Result<()> {
        let ConsoleFile { path, keep, .. } = &self.settings;
        let renamed = if *keep > 0 { rename_all(path, *keep) } else { Ok(()) };
        self.trouble = renamed.err();
        self.stream = Stream::over(open(path, false)?).map_err(io::Error::other)?;
        self.size = 0;
        Ok(())
    }

    fn wrote(&mut self, count: usize) {
        self.size = self.size.saturating_add(count as u64);
    }
}

/// Opens a file to be written at its end, wherever that is by then: somebody else may empty it.
fn open(path: &Path, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // A FIFO without a reader would wait for one.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | if append { 0 } else { libc::O_TRUNC };
    options.append(true).create(true).custom_flags(flags).open(path)
}

/// Makes the way free for another file of this name.
fn rename_all(path: &Path, keep: u32) -> io::Result<()> {
    if !path.try_exists()? {
        // Somebody else has taken it away.
        return Ok(());
    }
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..keep).rev() {
        match std::fs::rename(numbered(number), numbered(number.saturating_add(1))) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

impl Target for LogFile {
    fn attempt(&mut self, bytes: &[u8]) -> io::Result<Attempt> {
        let Fit::Some(count) = self.fit(bytes) else { return Ok(Attempt::MayWait) };
        let attempt = self.stream.try_write(bytes.get(..count).unwrap_or(bytes))?;
        if let Attempt::Moved(count) = attempt {
            self.wrote(count);
        }
        Ok(attempt)
    }

    fn take_waiting(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fit(bytes) == Fit::Next {
            self.begin_next()?;
        }
        let Fit::Some(count) = self.fit(bytes) else { return Err(io::ErrorKind::FileTooLarge.into()) };
        let written = self.stream.write_waiting(bytes.get(..count).unwrap_or(bytes))?;
        self.wrote(written);
        Ok(written)
    }

    fn polled(&self) -> Option<&Arc<File>> {
        self.stream.polled()
    }

    fn keeps(&self) -> bool {
        self.stream.polled().is_none()
    }

    fn ends_with_guest(&self) -> bool {
        true
    }

    fn trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }
}

#[cfg(test)]
#[path = "log_file_test.rs"]
mod tests;
