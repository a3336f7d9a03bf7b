//! The link of a card that goes on in another VM than the one that it was saved in.
//!
//! It goes down and comes up again, so that the guest takes its network for another one, which it is: it asks for its address anew, and tells
//! its neighbours where it is. The link comes up as soon as the guest has seen that it is down.

use std::time::{Duration, Instant};

use crate::event::Io;

/// The link is down for no longer, whether the guest has seen that or not. A guest on a busy host, or on an emulated CPU, takes its time.
const AT_MOST: Duration = Duration::from_secs(2);

/// Whether the link is down because the VM is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Away {
    #[default]
    No,
    /// From when the card was made to when the guest goes on.
    Still,
    Until(Instant),
}

impl Away {
    pub(super) fn is_away(self) -> bool {
        self != Self::No
    }

    /// The card was made from a saved state, and stands still yet.
    pub(super) fn begin(&mut self, io: &mut Io) {
        *self = Self::Still;
        io.info_changed();
    }

    /// The guest goes on: it is told once that the link is down.
    pub(super) fn tell(&mut self, io: &mut Io) {
        if *self == Self::Still {
            *self = io.now().checked_add(AT_MOST).map_or(Self::No, Self::Until);
            io.info_changed();
        }
    }

    /// The guest has seen it. Says whether the link was down until now.
    pub(super) fn end(&mut self, io: &mut Io) -> bool {
        let ends = matches!(self, Self::Until(_));
        if ends {
            *self = Self::No;
            io.info_changed();
        }
        ends
    }

    /// The same if the guest has not seen it in all the time that it had.
    pub(super) fn end_in_time(&mut self, io: &mut Io) -> bool {
        self.until().is_some_and(|end| end <= io.now()) && self.end(io)
    }

    pub(super) fn until(self) -> Option<Instant> {
        if let Self::Until(end) = self { Some(end) } else { None }
    }
}
