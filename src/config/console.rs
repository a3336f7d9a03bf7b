//! What the serial port is connected to.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

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
        }
    }
}

/// A file for the output of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ConsoleFile {
    /// Its path.
    pub path: PathBuf,
}

impl ConsoleFile {
    /// A file that is made or emptied when the VM is built.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned() }
    }

    fn validate(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "the path of the console's file is empty"));
        }
        Ok(())
    }
}
