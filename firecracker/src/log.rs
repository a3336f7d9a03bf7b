//! The program's own log: lines in a file, in a named pipe, or on standard output. It never waits for whoever reads it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// A pipe that can be written to takes so many bytes at once.
const MOST_LINE: usize = 4096;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words of the API")]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "error" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(format!("level {text:?}, allowed are Off, Error, Warning, Info, Debug and Trace")),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        })
    }
}

/// The log. A clone is the same one.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Inner>>);

struct Inner {
    /// What the machine is called.
    id: String,
    /// Standard output if there is none.
    file: Option<File>,
    level: Level,
    shows_level: bool,
    shows_origin: bool,
    /// Lines from elsewhere are left out.
    module: Option<String>,
    /// Lines that nobody took.
    missed: u64,
}

/// What of a log is set; what is `None` stays.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "as in LoggerUpdate")]
pub struct Settings<'a> {
    pub path: Option<&'a str>,
    pub level: Option<Level>,
    pub shows_level: Option<bool>,
    pub shows_origin: Option<bool>,
    pub module: Option<&'a str>,
}

impl Log {
    /// A log on standard output, of what is informative or more.
    pub fn new(id: &str) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            id: id.to_owned(),
            file: None,
            level: Level::Info,
            shows_level: false,
            shows_origin: false,
            module: None,
            missed: 0,
        })))
    }

    /// Sets what is given.
    ///
    /// # Errors
    /// If the file cannot be opened; nothing is set then.
    pub fn set(&self, settings: &Settings<'_>) -> io::Result<()> {
        let file = settings.path.map(open_to_append).transpose()?;
        let mut inner = self.lock();
        if file.is_some() {
            inner.file = file;
        }
        inner.level = settings.level.unwrap_or(inner.level);
        inner.shows_level = settings.shows_level.unwrap_or(inner.shows_level);
        inner.shows_origin = settings.shows_origin.unwrap_or(inner.shows_origin);
        if let Some(module) = settings.module {
            inner.module = Some(module.to_owned());
        }
        Ok(())
    }

    /// Says something that is wrong.
    pub fn error(&self, text: impl fmt::Display) {
        self.say(Level::Error, "vmcell_firecracker", &text);
    }

    /// Says something that may be wrong.
    pub fn warn(&self, text: impl fmt::Display) {
        self.say(Level::Warn, "vmcell_firecracker", &text);
    }

    /// Says what happens.
    pub fn info(&self, text: impl fmt::Display) {
        self.say(Level::Info, "vmcell_firecracker", &text);
    }

    /// Says something of a part of the program.
    pub fn say(&self, level: Level, origin: &str, text: &dyn fmt::Display) {
        let mut inner = self.lock();
        if level <= inner.level && inner.module.as_deref().is_none_or(|module| origin.starts_with(module)) {
            let line = inner.line(level, origin, text, SystemTime::now());
            if inner.write(line.as_bytes()).is_err() {
                inner.missed = inner.missed.saturating_add(1);
            }
        }
    }

    /// How many lines nobody took.
    pub fn missed(&self) -> u64 {
        self.lock().missed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn line(&self, level: Level, origin: &str, text: &dyn fmt::Display, now: SystemTime) -> String {
        let time = humantime::format_rfc3339_nanos(now).to_string();
        let thread = std::thread::current();
        let mut line = format!("{} [{}:{}", time.trim_end_matches('Z'), self.id, thread.name().unwrap_or("-"));
        if self.shows_level {
            line.push_str(&format!(":{level}"));
        }
        if self.shows_origin {
            line.push_str(&format!(":{origin}"));
        }
        // One line each, whatever a client or a guest has put into it.
        let text = text.to_string().replace(char::is_control, " ");
        line.push_str(&format!("] {text}"));
        line.truncate(line.floor_char_boundary(MOST_LINE.saturating_sub(1)));
        line.push('\n');
        line
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(line),
            None => write_to_stdout(line),
        }
    }
}

/// It may be anybody's pipe, whose reader is slow.
fn write_to_stdout(line: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&now))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stdout.write_all(line)?;
    stdout.flush()
}

/// Opens a file or a named pipe to which lines are added, without waiting for its reader.
pub fn open_to_append(path: &str) -> io::Result<File> {
    // A pipe that is open for reading, too, is never broken.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// The milliseconds since 1970, for metrics.
pub fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(settings: &Settings<'_>, say: impl FnOnce(&Log)) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Log::new("vm-1");
        log.set(&Settings { path: file.path().to_str(), ..settings.clone() }).unwrap();
        say(&log);
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn a_line_has_the_time_the_machine_and_what_is_asked_for_and_is_one_line() {
        let all = Settings { shows_level: Some(true), shows_origin: Some(true), ..Settings::default() };
        let text = logged(&all, |log| log.warn("one\ntwo\u{1b}"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-29T04:36:02.123456789".len());
        assert!(rest.starts_with("[vm-1:") && rest.ends_with(":WARN:vmcell_firecracker] one two \n"), "{rest}");
    }

    #[test]
    fn what_is_not_important_enough_or_from_elsewhere_is_left_out() {
        let warnings = Settings { level: Some(Level::Warn), ..Settings::default() };
        assert_eq!(logged(&warnings, |log| log.info("no")), "");
        let of_disks = Settings { module: Some("vmcell::disk"), ..Settings::default() };
        assert_eq!(logged(&of_disks, |log| log.error("no")), "");
        assert_eq!(logged(&Settings { level: Some(Level::Off), ..Settings::default() }, |log| log.error("no")), "");
    }

    #[test]
    fn a_long_line_is_cut_at_what_a_pipe_takes_at_once() {
        assert_eq!(logged(&Settings::default(), |log| log.info("ä".repeat(5000))).len().div_ceil(2), MOST_LINE / 2);
    }

    #[test]
    fn a_pipe_that_nobody_reads_takes_what_it_can_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let log = Log::new("vm-1");
        log.set(&Settings { path: path.to_str(), ..Settings::default() }).unwrap();
        for _ in 0..100 {
            log.info("x".repeat(MOST_LINE));
        }
        assert!(log.missed() > 0);
    }
}
