//! What a participant is told.

/// Names something that a participant waits for. [`Io::token`](super::Io::token) makes one.
///
/// Of layers that are stacked on each other, each has tokens of its own and passes down events whose token it does not
/// know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) u32);

/// Something happened that a participant waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What it happened to.
    pub token: Token,
    /// What happened.
    pub cause: Cause,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A descriptor is ready. It is reported again for as long as it is ready and wanted, so a batch may end early.
    Ready {
        /// There is something to read.
        readable: bool,
        /// Something may be written.
        writable: bool,
        /// The other side is gone, or the descriptor is in error. Reported for as long as the descriptor is wanted at all.
        hang_up: bool,
    },
    /// The deadline passed.
    Deadline,
    /// A [`Waker`](super::Waker) was used, once or more.
    Woken,
    /// [Another turn](super::Wants::again) was asked for, or the last one ended early. Its token is nobody's.
    Again,
}

impl Event {
    pub(crate) fn new(token: Token, cause: Cause) -> Self {
        Self { token, cause }
    }

    /// Whether there is something to read.
    pub fn is_readable(&self) -> bool {
        matches!(self.cause, Cause::Ready { readable: true, .. })
    }

    /// Whether something may be written.
    pub fn is_writable(&self) -> bool {
        matches!(self.cause, Cause::Ready { writable: true, .. })
    }

    /// Whether the other side is gone.
    pub fn is_hang_up(&self) -> bool {
        matches!(self.cause, Cause::Ready { hang_up: true, .. })
    }
}
