//! The link of a card that goes on in another VM than the one that it was saved in.
//!
//! It goes down and comes up again, so that the guest takes its network for another one, which it is: it asks for its address anew, and tells
//! its neighbours where it is. The link comes up shortly after the guest has seen that it is down.

use std::time::{Duration, Instant};

use crate::event::Io;

/// The link is down for no longer, whether the guest has seen that or not. A guest on a busy host, or on an emulated CPU, takes its time.
const AT_MOST: Duration = Duration::from_secs(2);

/// Once the guest has seen it, the link stays down for so long: Linux forgets its neighbours only if it is still down when a worker gets
/// to look (`linkwatch_event`), some time after the driver has.
const AFTERWARDS: Duration = Duration::from_millis(50);

/// Whether the link is down because the VM is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Away {
    #[default]
    No,
    /// From when the card was made to when the guest goes on.
    Still,
    Until(Instant),
    /// The same, once the guest has seen it.
    SeenUntil(Instant),
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

    /// The guest has seen it.
    pub(super) fn seen(&mut self, io: &Io) {
        if let Self::Until(end) = self {
            let soon = io.now().checked_add(AFTERWARDS).map_or(*end, |soon| soon.min(*end));
            *self = Self::SeenUntil(soon);
        }
    }

    /// Has the link come up if it is time. Says whether it was down until now.
    pub(super) fn end_in_time(&mut self, io: &mut Io) -> bool {
        let ends = self.until().is_some_and(|end| end <= io.now());
        if ends {
            *self = Self::No;
            io.info_changed();
        }
        ends
    }

    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Until(end) | Self::SeenUntil(end) => Some(end),
            Self::No | Self::Still => None,
        }
    }
}
