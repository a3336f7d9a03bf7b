//! The host's side of the serial console: where the guest's output goes and where its input comes from.
//!
//! Everything here runs on the I/O thread. It takes from the port's bounded buffer and gives to it; the guest never waits
//! for it.

mod helper;
mod input;
mod output;
mod pump;
mod sink;
mod status;
mod target;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::config::ConsoleConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Membership};
use crate::legacy::{OutputBuffer, Serial};
use crate::sys::{Direction, Stream};

use self::input::Input as Source;
use self::output::Output as Sinks;
use self::pump::Pump;
use self::sink::Sink;
use self::target::{Callback, Function, Target};

pub use self::helper::abandoned_console_threads;
pub use self::status::{ConsoleStatus, SinkStatus};

/// What the serial console is connected to.
///
/// A reader that stops reading holds the guest's output back for a moment (64 KiB are buffered); then output is dropped.
/// No vCPU ever waits for a reader. Whatever the console, [`Vm::write_console`](crate::Vm::write_console) types into it.
///
/// ```
/// use vmcell::Console;
///
/// let to_the_log = Console::callback(|bytes| assert!(!bytes.is_empty()));
/// ```
pub struct Console {
    output: Output,
    input: Input,
}

enum Output {
    None,
    Stdout,
    Descriptor(OwnedFd),
    Callback(Callback),
}

enum Input {
    None,
    Stdin,
    Descriptor(OwnedFd),
}

impl Console {
    /// No console: output is discarded.
    pub fn none() -> Self {
        Self { output: Output::None, input: Input::None }
    }

    /// Output to the process's standard output, input from its standard input. Neither's flags are changed, and a
    /// terminal's mode is left as it is; a program that wants each key to reach the guest makes it raw itself.
    pub fn stdio() -> Self {
        Self { output: Output::Stdout, input: Input::Stdin }
    }

    /// Output to a file, which is made or emptied; no input.
    ///
    /// # Errors
    /// [`ErrorKind::Console`] if the file cannot be opened for writing. A FIFO that nobody reads is refused too.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut options = OpenOptions::new();
        let file: File = options
            .write(true)
            .create(true)
            .truncate(true)
            // A FIFO without a reader would wait for one.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|e| {
                let message = format!("cannot open {} for the console's output", path.display());
                Error::new(ErrorKind::Console, message).with_source(e)
            })?;
        Ok(Self { output: Output::Descriptor(file.into()), input: Input::None })
    }

    /// Connects as `config` says. A file is made or emptied.
    ///
    /// # Errors
    /// Those of [`file`](Self::file).
    pub fn from_config(config: &ConsoleConfig) -> Result<Self> {
        match config {
            ConsoleConfig::None => Ok(Self::none()),
            ConsoleConfig::Stdio => Ok(Self::stdio()),
            ConsoleConfig::File(file) => Self::file(&file.path),
        }
    }

    /// Output to a function, in pieces of at most 4 KiB as they come; no input.
    ///
    /// It is called on the VM's I/O thread and must not block: for as long as it does, the devices on that thread wait. It
    /// may use the VM's handle, and even drop it, but not pause a VM nor wait for one.
    pub fn callback(output: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self { output: Output::Callback(Box::new(output)), input: Input::None }
    }

    /// Output to one descriptor and input from another, for instance both ends of a pseudo-terminal. Files, pipes, sockets
    /// and terminals will do. Both are taken and closed with the VM.
    pub fn descriptors(output: OwnedFd, input: Option<OwnedFd>) -> Self {
        Self { output: Output::Descriptor(output), input: input.map_or(Input::None, Input::Descriptor) }
    }

    /// Connects the console to its port. The connection lasts as long as what is returned.
    pub(crate) fn connect(
        self,
        serial: &Arc<Serial>,
        buffer: &OutputBuffer,
        io_thread: &IoThread,
    ) -> Result<Membership> {
        let sinks = self.output.open()?.map(|(name, target)| Sink::new(name, target, buffer.reader()));
        let stream = match self.input {
            Input::None => None,
            Input::Stdin => Some(Stream::new(std::io::stdin().as_fd(), Direction::ToUs)?),
            Input::Descriptor(fd) => Some(Stream::new(fd.as_fd(), Direction::ToUs)?),
        };
        let sinks = Sinks::new(sinks.into_iter().collect(), serial, buffer)?;
        io_thread.add(Box::new(Pump::new(sinks, Source::new(stream, serial)?)))
    }
}

impl Output {
    /// What is to be written to, and its name.
    fn open(self) -> Result<Option<(String, Box<dyn Target>)>> {
        Ok(match self {
            Self::None => None,
            Self::Stdout => {
                let stream = Stream::new(std::io::stdout().as_fd(), Direction::FromUs)?;
                Some(("standard output".to_owned(), Box::new(stream)))
            }
            Self::Descriptor(fd) => {
                let stream = Stream::new(fd.as_fd(), Direction::FromUs)?;
                Some((format!("descriptor {}", fd.as_raw_fd()), Box::new(stream)))
            }
            Self::Callback(callback) => Some(("the callback".to_owned(), Box::new(Function::new(callback)))),
        })
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.output {
            Output::None => "Console::none",
            Output::Stdout => "Console::stdio",
            Output::Descriptor(_) => "Console::descriptors",
            Output::Callback(_) => "Console::callback",
        })
    }
}

#[cfg(test)]
mod descriptors_test;
