//! What the library says of a VM: to a function of the host program, or to the `log` facade, or to nobody.
//!
//! Nothing is said by default. A record is given on the thread that it is about, never while a lock of the library is held, and never
//! while a vCPU is on its way into the guest. What a guest can cause is said once a second at most, with how often it happened.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the same thing is said of the same device, at the most.
const ONCE_IN: Duration = Duration::from_secs(1);

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// A VM or a device has failed.
    Error,
    /// Something is not as it should be, and goes on all the same.
    Warn,
    /// What a VM does.
    Info,
}

/// One word in lower case.
impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        })
    }
}

/// What is said of a VM; see [`VmBuilder::log`](crate::VmBuilder::log). It is shown as a line without its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord<'a> {
    /// How much it matters.
    pub level: LogLevel,
    /// The VM's name; empty if it has none.
    pub vm: &'a str,
    /// What it is about: `vm`, `console`, or a device as [`DeviceMetrics`](crate::DeviceMetrics::name) calls it, such as `disk0`.
    pub target: &'a str,
    /// What happened: one line of text, without a full stop; a control character in it is escaped. Its wording may change with
    /// each version.
    pub message: &'a str,
}

impl fmt::Display for LogRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vm, target, message, .. } = self;
        if vm.is_empty() { write!(f, "{target}: {message}") } else { write!(f, "{vm}: {target}: {message}") }
    }
}

type Call = dyn Fn(&LogRecord<'_>) + Send + Sync;

/// Says what happens to one VM. A clone says it to the same one.
#[derive(Clone, Default)]
pub(crate) struct Logger {
    vm: Arc<str>,
    sink: Option<Arc<Sink>>,
}

struct Sink {
    call: Box<Call>,
    /// It has panicked, and is not called again.
    is_broken: AtomicBool,
}

impl Logger {
    pub(crate) fn new(vm: Arc<str>, call: Option<Box<Call>>) -> Self {
        Self { vm, sink: call.map(|call| Arc::new(Sink { call, is_broken: AtomicBool::new(false) })) }
    }

    /// Says what `message` gives, if anybody listens.
    pub(crate) fn say(&self, level: LogLevel, target: &str, message: impl FnOnce() -> String) {
        if !self.is_heard(level) {
            return;
        }
        // A path in it may have any characters.
        let message = in_one_line(message());
        let record = LogRecord { level, vm: &self.vm, target, message: &message };
        match &self.sink {
            Some(sink) => sink.take(&record),
            None => facade::take(&record),
        }
    }

    fn is_heard(&self, level: LogLevel) -> bool {
        self.sink.as_ref().map_or_else(|| facade::hears(level), |sink| !sink.is_broken.load(Ordering::Relaxed))
    }

    /// What is said of one part of the VM.
    pub(crate) fn about(&self, target: &str) -> Voice {
        Voice { logger: self.clone(), target: target.into() }
    }
}

impl Sink {
    fn take(&self, record: &LogRecord<'_>) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.call)(record))) {
            self.is_broken.store(true, Ordering::Relaxed);
            // What a panic carries may panic as well when it is dropped.
            std::mem::forget(panic);
        }
    }
}

/// Replaces each control character by its escape, so that a text of others cannot begin another line of a log.
pub(crate) fn in_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Says what happens to a part of a VM. By default nobody hears it.
#[derive(Clone, Default)]
pub(crate) struct Voice {
    logger: Logger,
    target: Arc<str>,
}

impl Voice {
    pub(crate) fn say(&self, level: LogLevel, message: impl FnOnce() -> String) {
        self.logger.say(level, &self.target, message);
    }
}

/// Keeps what a guest can cause from being said too often.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    said: Option<Instant>,
    /// Since it was last said.
    count: u64,
    total: u64,
}

impl Throttle {
    /// It has happened so often. If it is time to say so, returns how often since it was last said, and in all.
    pub(crate) fn count(&mut self, count: u64) -> Option<(u64, u64)> {
        self.count = self.count.saturating_add(count);
        self.total = self.total.saturating_add(count);
        let now = Instant::now();
        let is_time = self.said.is_none_or(|said| now.saturating_duration_since(said) >= ONCE_IN);
        is_time.then(|| {
            self.said = Some(now);
            (std::mem::take(&mut self.count), self.total)
        })
    }
}

#[cfg(feature = "log")]
mod facade {
    use super::{LogLevel, LogRecord};

    fn convert(level: LogLevel) -> log::Level {
        match level {
            LogLevel::Error => log::Level::Error,
            LogLevel::Warn => log::Level::Warn,
            LogLevel::Info => log::Level::Info,
        }
    }

    pub(super) fn hears(level: LogLevel) -> bool {
        log::log_enabled!(target: "vmcell", convert(level))
    }

    pub(super) fn take(record: &LogRecord<'_>) {
        log::log!(target: "vmcell", convert(record.level), "{record}");
    }
}

#[cfg(not(feature = "log"))]
mod facade {
    use super::{LogLevel, LogRecord};

    pub(super) fn hears(_: LogLevel) -> bool {
        false
    }

    pub(super) fn take(_: &LogRecord<'_>) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_record_reaches_the_function_with_its_parts() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (hears, vm) = (heard.clone(), "web".into());
        let logger = Logger::new(vm, Some(Box::new(move |record| hears.lock().unwrap().push(record.to_string()))));
        logger.about("disk0").say(LogLevel::Warn, || "it is odd".to_owned());
        logger.about("disk0").say(LogLevel::Warn, || "cannot open a\nb\x1b[2J".to_owned());
        Logger::new("".into(), None).say(LogLevel::Error, "vm", || panic!("nobody listens"));
        assert_eq!(*heard.lock().unwrap(), ["web: disk0: it is odd", "web: disk0: cannot open a\\nb\\u{1b}[2J"]);
        let record = LogRecord { level: LogLevel::Info, vm: "", target: "vm", message: "starts" };
        assert_eq!(record.to_string(), "vm: starts");
        assert_eq!(format!("{:5} {record}", record.level), "info  vm: starts");
    }

    #[test]
    fn a_function_that_panics_is_not_called_again() {
        let calls = Arc::new(Mutex::new(0));
        let counts = calls.clone();
        let call = move |_: &LogRecord<'_>| {
            *counts.lock().unwrap() += 1;
            std::panic::panic_any("on purpose");
        };
        let logger = Logger::new("web".into(), Some(Box::new(call)));
        (0..3).for_each(|_| logger.say(LogLevel::Info, "vm", || "starts".to_owned()));
        assert_eq!(calls.lock().map(|calls| *calls).unwrap_or_else(|poisoned| *poisoned.into_inner()), 1);
    }

    #[test]
    fn what_comes_too_often_is_counted_and_said_once() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.count(2), Some((2, 2)));
        assert_eq!((throttle.count(3), throttle.count(4)), (None, None));
        throttle.said = throttle.said.map(|said| said - ONCE_IN);
        assert_eq!(throttle.count(1), Some((8, 10)));
    }

    #[cfg(feature = "log")]
    #[test]
    fn the_facade_hears_what_no_function_is_given_for() {
        struct Facade(Mutex<Vec<String>>);

        impl log::Log for Facade {
            fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
                metadata.level() <= log::Level::Warn
            }

            fn log(&self, record: &log::Record<'_>) {
                if record.args().to_string().starts_with("facade: ") {
                    let (level, target) = (record.level(), record.target());
                    self.0.lock().unwrap().push(format!("{level} {target} {}", record.args()));
                }
            }

            fn flush(&self) {}
        }

        static FACADE: Facade = Facade(Mutex::new(Vec::new()));
        log::set_logger(&FACADE).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let logger = Logger::new("facade".into(), None);
        logger.say(LogLevel::Warn, "disk0", || "it is odd".to_owned());
        logger.say(LogLevel::Info, "vm", || panic!("the facade does not want to know"));
        Logger::new("facade".into(), Some(Box::new(|_| {}))).say(LogLevel::Error, "vm", || "failed".to_owned());
        assert_eq!(*FACADE.0.lock().unwrap(), ["WARN vmcell facade: disk0: it is odd"]);
    }
}
