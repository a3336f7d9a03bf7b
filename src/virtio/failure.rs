//! What went wrong with a device, for the host program.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::error::{Error, ErrorKind};
use crate::meter::Tally;
use crate::sys::lock;

/// What is kept of a message, in bytes: code of a user's may say as much as it likes.
const LONGEST_MESSAGE: usize = 1024;

/// Why a device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCause {
    /// The guest's driver broke a queue: its index jumps, for instance. A reset by the driver helps.
    BrokenQueue,
    /// The device returned an error, or the host cannot watch what it waits for. A reset by the driver may help.
    Error,
    /// The device or its backend panicked. It has been dropped, so a reset by the driver does not help.
    Panicked,
    /// The backend completed an operation that it did not have. It has been dropped, so a reset by the driver does not help.
    BrokeRule,
    /// The device or its backend [gave up](crate::event::Io::give_up). It has been dropped, so a reset by the driver does not help.
    GaveUp,
}

impl FailureCause {
    /// Returns a word that stays the same in later versions: `broken_queue`, `error`, `panicked`, `broke_rule` or `gave_up`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BrokenQueue => "broken_queue",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::BrokeRule => "broke_rule",
            Self::GaveUp => "gave_up",
        }
    }

    /// Whether the device or its backend was dropped, so that no reset by the driver helps.
    /// [`DiskHandle::replace`](crate::DiskHandle::replace) gives a disk another backend.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Panicked | Self::BrokeRule | Self::GaveUp)
    }
}

/// The last failure of a device, and how many there were.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Why it failed last.
    pub cause: FailureCause,
    /// The same in words, on one line of at most 1 KiB: `the backend panicked: index out of bounds`.
    pub message: String,
    /// When that was, by the host's clock.
    pub at: SystemTime,
    /// How often the device has failed since it was made. A guest can make this number large.
    pub count: u64,
    /// Whether the driver is told now that the device needs a reset. It is not if the driver has reset the device with success.
    pub needs_reset: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Why a device or backend is never called again: the source of the errors that say so.
#[derive(Debug)]
pub(super) struct Condemnation {
    cause: FailureCause,
}

impl Condemnation {
    /// The error that says so of the `what`, a device or a backend.
    pub(super) fn error(kind: ErrorKind, what: &str, cause: FailureCause, why: &str) -> Error {
        let message = match cause {
            FailureCause::BrokeRule => format!("the {what} broke a rule: {why}"),
            FailureCause::GaveUp => format!("the {what} gave up: {why}"),
            _ if why.is_empty() => format!("the {what} panicked"),
            _ => format!("the {what} panicked: {why}"),
        };
        Error::new(kind, message).with_source(Self { cause })
    }
}

impl fmt::Display for Condemnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not called again")
    }
}

impl StdError for Condemnation {}

/// The failures of one device. However many there are, only the last one is kept.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) count: Tally,
    last: Mutex<Option<(FailureCause, String, SystemTime)>>,
}

impl Failures {
    /// By the owner of the device. Returns what is kept of the failure.
    pub(super) fn note(&self, error: &Error) -> (FailureCause, String) {
        let condemnation = error.source().and_then(|source| source.downcast_ref::<Condemnation>());
        let (cause, text) = match condemnation {
            Some(condemnation) => (condemnation.cause, error.to_string()),
            None if error.kind() == ErrorKind::Virtqueue => (FailureCause::BrokenQueue, error.chain()),
            None => (FailureCause::Error, error.chain()),
        };
        let message = brief(&text);
        self.count.add(1);
        *lock(&self.last) = Some((cause, message.clone(), SystemTime::now()));
        (cause, message)
    }

    pub(super) fn read(&self, needs_reset: bool) -> Option<Failure> {
        let (cause, message, at) = lock(&self.last).clone()?;
        Some(Failure { cause, message, at, count: self.count.get(), needs_reset })
    }
}

/// One line, and not too long.
fn brief(text: &str) -> String {
    let kept = text.get(..text.floor_char_boundary(LONGEST_MESSAGE)).unwrap_or_default();
    kept.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_bounded() {
        assert_eq!(brief("assertion failed\n  left: 1\n right: 2\n"), "assertion failed left: 1 right: 2");
        let long = "ä".repeat(LONGEST_MESSAGE);
        assert_eq!(brief(&long), "ä".repeat(LONGEST_MESSAGE / 2));
        assert_eq!(brief(&format!("x{long}")).len(), LONGEST_MESSAGE - 1);
    }

    #[test]
    fn only_the_last_of_a_million_failures_is_kept() {
        let failures = Failures::default();
        assert_eq!(failures.read(false), None);
        for number in 0..1_000_000 {
            failures.note(&Error::new(ErrorKind::Virtqueue, format!("jump {number}")));
        }
        let failure = failures.read(true).unwrap();
        let (cause, count) = (FailureCause::BrokenQueue, 1_000_000);
        let expected = Failure { cause, message: "jump 999999".to_owned(), count, needs_reset: true, at: failure.at };
        assert_eq!(failure, expected);
    }

    #[test]
    fn a_cause_is_read_from_the_error_that_tells_it() {
        let cause = |error: Error| Failures::default().note(&error);
        let condemned = |cause, why: &str| Condemnation::error(ErrorKind::Disk, "backend", cause, why);
        for (why, text) in [
            (FailureCause::Panicked, "the backend panicked: said"),
            (FailureCause::BrokeRule, "the backend broke a rule: said"),
            (FailureCause::GaveUp, "the backend gave up: said"),
        ] {
            assert_eq!(cause(condemned(why, "said")), (why, text.to_owned()));
            assert!(why.is_final());
        }
        assert_eq!(cause(condemned(FailureCause::Panicked, "")).1, "the backend panicked");
        let refused = Error::new(ErrorKind::Host, "refused").with_source("by the kernel");
        assert_eq!(cause(refused), (FailureCause::Error, "refused: by the kernel".to_owned()));
        assert!(!FailureCause::Error.is_final() && !FailureCause::BrokenQueue.is_final());
    }
}
