//! Events: what a participant is told.

/// Names something that a participant waits for. [`Io::token`](super::Io::token) makes one.
///
/// If layers are stacked on each other, each one has tokens of its own, and passes events whose token it does not know on to
/// the layer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(super) u32);

/// Something happened that a participant waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The token under which the participant waits for it.
    pub token: Token,
    /// What happened.
    pub cause: Cause,
}

/// What happened in an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A descriptor is ready. It is reported again for as long as it is ready and wanted, so a batch may end early.
    Ready {
        /// There is something to read.
        readable: bool,
        /// There is room to write.
        writable: bool,
        /// The other side is gone, or the descriptor is in error. This is reported for as long as the descriptor is wanted
        /// at all.
        hang_up: bool,
    },
    /// The deadline has passed.
    Deadline,
    /// A [`Waker`](super::Waker) was used, once or several times.
    Woken,
    /// [Another turn](super::Wants::again) was asked for, or the last one ended early. The token of this event belongs to
    /// nobody.
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

    /// Whether there is room to write.
    pub fn is_writable(&self) -> bool {
        matches!(self.cause, Cause::Ready { writable: true, .. })
    }

    /// Whether the other side is gone.
    pub fn is_hang_up(&self) -> bool {
        matches!(self.cause, Cause::Ready { hang_up: true, .. })
    }
}
