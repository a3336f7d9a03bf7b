//! The host's side of the serial console: where the guest's output goes and where its input comes from.
//!
//! Everything here runs on the I/O thread. It takes from the port's bounded buffer and gives to it; the guest never waits
//! for it.

mod apart;
mod helper;
mod input;
mod log_file;
mod losses;
mod output;
mod pair;
mod pump;
mod sink;
mod status;
mod target;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::config::{ConsoleConfig, ConsoleFile, check_stdio};
use crate::error::Result;
use crate::event::{IoThread, Membership};
use crate::legacy::{OutputBuffer, Serial};
use crate::logging::Voice;
use crate::sys::{Direction, Stream};

use self::input::Input as Source;
use self::log_file::{LogFile, OpenedFile};
use self::losses::Losses;
use self::output::Output as Sinks;
use self::pump::Pump;
use self::sink::Sink;
use self::target::{Callback, Function, Target};

pub use self::helper::abandoned_console_threads;
pub use self::pair::{ConsoleReader, ConsoleWriter};
pub use self::status::{ConsoleStatus, SinkStatus};

/// What the serial console is connected to: any number of sinks, which get what the guest prints, and of sources, which type into
/// it. Whatever they are, [`Vm::write_console`](crate::Vm::write_console) types into it, too.
///
/// No sink ever holds up a vCPU for long, another sink, or anything else on its I/O thread. Each takes the output at its own pace,
/// and may lag behind by 64 KiB. If no sink takes anything, the guest is asked to wait, for a quarter of a second; a sink that lags
/// behind by more misses the oldest bytes. One that fails is tried again after a second, and once more when the guest has ended: a
/// file gets then what was kept for it, a pipe or a terminal only what is printed from then on.
/// [`Vm::console_status`](crate::Vm::console_status) counts for each sink what it got and missed.
///
/// When the guest has ended and a sink has got everything or failed, its descriptor is closed; otherwise when the VM is dropped.
///
/// ```
/// use vmcell::{Console, ConsoleFile};
///
/// let log = Console::file(ConsoleFile::new("vm.log").append(true).rotate(1 << 20, 3));
/// let console = log.also(Console::callback(|bytes| assert!(!bytes.is_empty())));
/// ```
#[derive(Default)]
pub struct Console {
    outputs: Vec<Output>,
    inputs: Vec<Input>,
}

enum Output {
    Stdout,
    Descriptor(OwnedFd),
    File(ConsoleFile),
    Opened(OpenedFile),
    Callback(Callback),
}

enum Input {
    Stdin,
    Descriptor(OwnedFd),
}

impl Console {
    /// No console: output is discarded.
    pub fn none() -> Self {
        Self::default()
    }

    /// Output to the process's standard output, input from its standard input. Neither's flags are changed, and a
    /// terminal's mode is left as it is; a program that wants each key to reach the guest makes it raw itself. A VM has it
    /// once: building it is refused otherwise.
    pub fn stdio() -> Self {
        Self { outputs: vec![Output::Stdout], inputs: vec![Input::Stdin] }
    }

    /// Output to a file, given by its path or by a [`ConsoleFile`], which says more; no input. Nothing is opened before the VM is
    /// built. That is refused with [`ErrorKind::Console`](crate::ErrorKind::Console) if the file cannot be opened for writing, or is
    /// a FIFO that nobody reads, and with [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if it is
    /// [limited in size](ConsoleFile::rotate) and another sink has it, too, or if it is a disk of the VM, its kernel or its initrd.
    pub fn file(file: impl Into<ConsoleFile>) -> Self {
        Self { outputs: vec![Output::File(file.into())], inputs: Vec::new() }
    }

    /// Connects as `config` says. Nothing is opened before the VM is built.
    pub fn from_config(config: &ConsoleConfig) -> Self {
        match config {
            ConsoleConfig::None => Self::none(),
            ConsoleConfig::Stdio => Self::stdio(),
            ConsoleConfig::File(file) => Self::file(file.clone()),
            ConsoleConfig::All(consoles) => consoles.iter().map(Self::from_config).fold(Self::none(), Self::also),
        }
    }

    /// Whether files are opened while the guest runs.
    pub(crate) fn rotates(&self) -> bool {
        self.files().any(|file| file.max_bytes.is_some())
    }

    /// Output to a function, in pieces of at most 4 KiB as they come; no input.
    ///
    /// It is called on the VM's I/O thread and must not block: for as long as it does, the devices on that thread wait. It
    /// may use the VM's handle, and even drop it; [what a callback may do](crate::event#what-a-callback-may-do) has the details. It
    /// is not called again if it panics.
    pub fn callback(output: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self { outputs: vec![Output::Callback(Box::new(output))], inputs: Vec::new() }
    }

    /// Output to one descriptor and input from another, which may be a duplicate of the first. Anything will do: files, pipes,
    /// FIFOs, sockets, terminals, either side of a pseudo-terminal, devices; blocking or not, shared with other processes or not.
    /// Both are taken. Their flags are never changed.
    ///
    /// A descriptor whose other side is gone costs nothing, and works again if it comes back, as it may for a FIFO or a terminal.
    /// Where Linux has no way to write or read without waiting, as on a terminal, a thread of the console's own does it.
    pub fn descriptors(output: OwnedFd, input: Option<OwnedFd>) -> Self {
        let inputs = input.map(Input::Descriptor).into_iter().collect();
        Self { outputs: vec![Output::Descriptor(output)], inputs }
    }

    /// Output to a reader and input from a writer that the host program keeps. Each is a pipe, and may be sent to another thread.
    ///
    /// # Errors
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) where the process may open no more descriptors.
    pub fn pair() -> Result<(Self, ConsoleReader, ConsoleWriter)> {
        let (output, reader) = pair::reader()?;
        let (input, writer) = pair::writer()?;
        Ok((Self::descriptors(output, Some(input)), reader, writer))
    }

    /// Adds the sinks and the sources of another console.
    #[must_use]
    pub fn also(mut self, other: Self) -> Self {
        self.outputs.extend(other.outputs);
        self.inputs.extend(other.inputs);
        self
    }

    /// Changes how its files are opened.
    #[cfg(any(test, feature = "capi"))]
    pub(crate) fn change_files(mut self, change: impl Fn(ConsoleFile) -> ConsoleFile) -> Self {
        for output in &mut self.outputs {
            if let Output::File(file) = output {
                *file = change(file.clone());
            }
        }
        self
    }

    /// Its files that are given by their paths.
    pub(crate) fn files(&self) -> impl Iterator<Item = &ConsoleFile> {
        self.outputs.iter().filter_map(Output::file)
    }

    /// Opens its files, so that their paths are not needed any more, but for those of a limited size. Nothing in them changes yet.
    pub(crate) fn opened(mut self) -> Result<Self> {
        check_stdio(self.outputs.iter().filter(|output| matches!(output, Output::Stdout)).count())?;
        if !self.outputs.iter().any(|output| matches!(output, Output::File(_))) {
            return Ok(self);
        }
        apart::check(self.files())?;
        let open = |output| match output {
            Output::File(file) => OpenedFile::open(file).map(Output::Opened),
            other => Ok(other),
        };
        self.outputs = self.outputs.into_iter().map(open).collect::<Result<_>>()?;
        Ok(self)
    }

    /// The folders of files that are opened while the guest runs. Their paths are absolute once the files are [open](Self::opened).
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.files().filter(|file| file.max_bytes.is_some()).filter_map(|file| file.path.parent())
    }

    /// Connects the console to its port. The connection lasts as long as what is returned.
    pub(crate) fn connect(
        self,
        serial: &Arc<Serial>,
        buffer: &OutputBuffer,
        io_thread: &IoThread,
        voice: Voice,
    ) -> Result<Membership> {
        let Self { outputs, inputs } = self.opened()?;
        let mut sinks = Vec::new();
        for output in outputs {
            let (name, target) = output.open()?;
            sinks.push(Sink::new(target, buffer.reader(&name), name, voice.clone()));
        }
        let mut sources = Vec::new();
        for input in inputs {
            let (name, stream) = input.open()?;
            sources.push(Source::new(stream, name, serial, voice.clone()));
        }
        let sinks = Sinks::new(sinks, serial, buffer)?;
        io_thread.add(Box::new(Pump::new(sinks, sources, serial, Losses::new(buffer, voice))?))
    }
}

impl Output {
    fn file(&self) -> Option<&ConsoleFile> {
        match self {
            Self::File(file) => Some(file),
            Self::Opened(file) => Some(file.settings()),
            _ => None,
        }
    }

    /// What is to be written to, and its name.
    fn open(self) -> Result<(String, Box<dyn Target>)> {
        Ok(match self {
            Self::Stdout => {
                let stream = Stream::new(std::io::stdout().as_fd(), Direction::FromUs)?;
                ("standard output".to_owned(), Box::new(stream))
            }
            Self::Descriptor(fd) => {
                let stream = Stream::new(fd.as_fd(), Direction::FromUs)?;
                (format!("descriptor {}", fd.as_raw_fd()), Box::new(stream))
            }
            Self::File(file) => return Self::Opened(OpenedFile::open(file)?).open(),
            Self::Opened(file) => (file.name(), Box::new(LogFile::new(file)?)),
            Self::Callback(callback) => ("the callback".to_owned(), Box::new(Function::new(callback))),
        })
    }
}

impl Input {
    /// What is to be read from, and its name.
    fn open(self) -> Result<(String, Stream)> {
        Ok(match self {
            Self::Stdin => ("standard input".to_owned(), Stream::new(std::io::stdin().as_fd(), Direction::ToUs)?),
            Self::Descriptor(fd) => {
                (format!("descriptor {}", fd.as_raw_fd()), Stream::new(fd.as_fd(), Direction::ToUs)?)
            }
        })
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Descriptor(fd) => write!(f, "descriptor {}", fd.as_raw_fd()),
            Self::File(file) => file.fmt(f),
            Self::Opened(file) => file.settings().fmt(f),
            Self::Callback(_) => f.write_str("callback"),
        }
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin"),
            Self::Descriptor(fd) => write!(f, "descriptor {}", fd.as_raw_fd()),
        }
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("outputs", &self.outputs).field("inputs", &self.inputs).finish()
    }
}

#[cfg(test)]
mod descriptors_test;
#[cfg(test)]
mod rig_test;
#[cfg(test)]
mod sinks_test;
