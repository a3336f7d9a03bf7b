//! What the serial port is connected to.

use std::path::{Path, PathBuf};

use super::text::refuse_nul;
use crate::error::{Error, ErrorKind, Result};

/// The smallest limit of a file's size: a screen of text.
const LEAST_BYTES: u64 = 4096;
/// The most older files that are kept: all of them are renamed when another one is begun.
const MOST_KEPT: u32 = 100;

/// What a VM's serial port is connected to, as far as that is data. [`Console`](crate::Console) has descriptors and callbacks as
/// well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum ConsoleConfig {
    /// Nothing: output is discarded.
    #[default]
    None,
    /// The process's standard output and standard input, as [`Console::stdio`](crate::Console::stdio) connects them.
    Stdio,
    /// Output to a file; no input.
    File(ConsoleFile),
    /// All of these, at once.
    All(Vec<ConsoleConfig>),
}

impl ConsoleConfig {
    /// Output to a file, which is made or emptied when the VM is built; no input.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(ConsoleFile::new(path))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Self::None | Self::Stdio => Ok(()),
            Self::File(file) => file.validate(),
            Self::All(consoles) => {
                check_stdio(self.stdio())?;
                consoles.iter().try_for_each(Self::validate)
            }
        }
    }

    /// How often it is the standard output and input.
    fn stdio(&self) -> usize {
        match self {
            Self::None | Self::File(_) => 0,
            Self::Stdio => 1,
            Self::All(consoles) => consoles.iter().map(Self::stdio).sum(),
        }
    }
}

/// Refuses a console that would print everything twice, and whose sources would take each other's input.
pub(crate) fn check_stdio(times: usize) -> Result<()> {
    if times <= 1 {
        return Ok(());
    }
    let message = format!("the console is connected to stdio {times} times, allowed is once");
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// A file for the output of a console: where it is, whether it is appended to, and how large it may grow.
///
/// The file is opened when the VM is built, and made or emptied unless it is appended to. The guest decides how much it prints, so
/// a file that nobody looks after needs a [limit](Self::rotate).
///
/// ```
/// use vmcell::{Console, ConsoleFile};
///
/// // vm.log, vm.log.1, vm.log.2 and vm.log.3, together at most 4 MiB.
/// let file = ConsoleFile::new("vm.log").append(true).rotate(1 << 20, 3);
/// let console = Console::file(file);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"path\": \"guest.log\" }")
)]
#[non_exhaustive]
pub struct ConsoleFile {
    /// Its path. A FIFO or a device will do, too.
    pub path: PathBuf,
    /// Whether what the file holds already stays. The default is no.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub append: bool,
    /// How large the file may grow, in bytes, 4096 or more; see [`rotate`](Self::rotate). The default is no limit.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub max_bytes: Option<u64>,
    /// How many older files are kept, 0 to 100; more than 0 only if there is a limit. The default is none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub keep: u32,
}

impl ConsoleFile {
    /// A file that is made or emptied when the VM is built, and grows without a limit.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), append: false, max_bytes: None, keep: 0 }
    }

    /// Sets whether what the file holds already stays.
    #[must_use]
    pub fn append(mut self, append: bool) -> Self {
        self.append = append;
        self
    }

    /// Limits the file to `max_bytes`. If it would grow above that, it is renamed to its name with `.1` at the end, an older `.1`
    /// to `.2` and so on, up to `keep` of them; the oldest is replaced. If none are kept, the file is emptied instead. It is
    /// divided at the end of a line if there is one in what the guest has just printed, otherwise where it is full.
    ///
    /// If renaming fails, the file is emptied: the limit holds in any case. [`SinkStatus`](crate::SinkStatus) counts that.
    ///
    /// The file must be this sink's alone. Another sink of the same VM is refused the file, and its older ones; if another VM
    /// writes to a file of this path, it goes on in the renamed one.
    #[must_use]
    pub fn rotate(mut self, max_bytes: u64, keep: u32) -> Self {
        self.max_bytes = Some(max_bytes);
        self.keep = keep;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.path.as_os_str().is_empty() {
            return refused("the path of the console's file is empty".to_owned());
        }
        refuse_nul("the path of the console's file", self.path.as_os_str())?;
        let path = self.path.display();
        match (self.max_bytes, self.keep) {
            (Some(max_bytes @ ..LEAST_BYTES), _) => refused(format!(
                "the console's file {path} was asked to be limited to {max_bytes} bytes, allowed are {LEAST_BYTES} or more"
            )),
            (None, keep @ 1..) => refused(format!(
                "of the console's file {path} {keep} older ones were asked to be kept, but its size is not limited, so \
                 that there are none"
            )),
            (_, keep) if keep > MOST_KEPT => refused(format!(
                "of the console's file {path} {keep} older ones were asked to be kept, allowed are 0 to {MOST_KEPT}"
            )),
            _ => Ok(()),
        }
    }
}

impl<P: AsRef<Path>> From<P> for ConsoleFile {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_are_refused_with_the_path() {
        let file = |max_bytes, keep| ConsoleFile::new("vm.log").rotate(max_bytes, keep);
        file(4096, 0).validate().unwrap();
        file(u64::MAX, 100).validate().unwrap();
        let refused = |file: ConsoleFile| {
            let error =
                ConsoleConfig::All(vec![ConsoleConfig::Stdio, ConsoleConfig::File(file)]).validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            error.to_string()
        };
        let limited = "the console's file vm.log was asked to be limited to 4095 bytes, allowed are 4096 or more";
        assert_eq!(refused(file(4095, 0)), limited);
        let kept = "of the console's file vm.log 101 older ones were asked to be kept, allowed are 0 to 100";
        assert_eq!(refused(file(4096, 101)), kept);
        let unlimited = ConsoleFile { max_bytes: None, ..file(4096, 3) };
        let useless = "of the console's file vm.log 3 older ones were asked to be kept, but its size is not limited, so that there are none";
        assert_eq!(refused(unlimited), useless);
    }
}
