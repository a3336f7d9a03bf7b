//! What a buffer of output knows of one of its readers.

use std::time::{Duration, Instant};

use crate::error::Error;

/// Some hundred screens of text, as much as a guest writes in a tenth of a second.
pub(super) const CAPACITY: usize = 64 << 10;

/// How long a full buffer holds the guest's transmitter back before bytes are lost instead. A reader that pauses for
/// less loses nothing; one that never reads costs the guest no more than this, once.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// How a reader listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    /// It takes what comes, and the guest may be made to wait for it.
    Reads,
    /// It cannot take anything now, and tries again: what it misses is lost, and nobody waits for it.
    Fails,
    /// It takes nothing, and nothing is kept for it: what it has not got is lost.
    Gone,
}

/// What became of the bytes that a reader should have got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Of the reader.
    pub(crate) name: String,
    pub(crate) delivered: u64,
    /// It was too slow.
    pub(crate) dropped: u64,
    /// Writing them failed.
    pub(crate) lost: u64,
    /// How often a file could not be renamed.
    pub(crate) failed_rotations: u64,
    /// They are still to come.
    pub(crate) waiting: u64,
    pub(crate) last_error: Option<Error>,
}

/// Whether there is room for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Some,
    /// It may take something in time.
    NoneYet,
    /// It has had its time.
    None,
}

pub(super) struct Place {
    /// Of the next byte that it takes.
    pub(super) position: u64,
    under_way: u64,
    listening: Listening,
    /// Since when it lags behind by all that the buffer holds.
    full_since: Option<Instant>,
    pub(super) counts: Counts,
}

impl Place {
    pub(super) fn new(name: String, position: u64) -> Self {
        let counts = Counts { name, ..Counts::default() };
        Self { position, under_way: 0, listening: Listening::Reads, full_since: None, counts }
    }

    /// Whether bytes are kept for it.
    pub(super) fn keeps(&self) -> bool {
        self.listening != Listening::Gone
    }

    /// Whether it has yet to take the byte at `oldest`, before which there is none.
    pub(super) fn needs(&self, oldest: u64) -> bool {
        self.keeps() && self.position == oldest
    }

    pub(super) fn room(&self) -> Option<Room> {
        (self.listening == Listening::Reads).then(|| match self.full_since {
            None => Room::Some,
            Some(since) if since.elapsed() < PATIENCE => Room::NoneYet,
            Some(_) => Room::None,
        })
    }

    /// Takes note of `count` bytes that were written, so that they are `written` in all and those before `oldest` are gone.
    /// Says whether it should hurry.
    pub(super) fn advance(&mut self, written: u64, oldest: u64, count: usize) -> bool {
        let before = written.saturating_sub(count as u64).saturating_sub(self.position);
        let missed = match self.listening {
            Listening::Gone => written.saturating_sub(self.position),
            Listening::Reads | Listening::Fails => oldest.saturating_sub(self.position),
        };
        self.position = self.position.saturating_add(missed);
        let counter = match self.listening {
            Listening::Reads => &mut self.counts.dropped,
            Listening::Fails | Listening::Gone => &mut self.counts.lost,
        };
        *counter = counter.saturating_add(missed);
        let (half, all) = (CAPACITY as u64 / 2, CAPACITY as u64);
        let lag = written.saturating_sub(self.position);
        if lag >= all && self.listening == Listening::Reads {
            self.full_since.get_or_insert_with(Instant::now);
        }
        before < half && half <= lag
    }

    pub(super) fn take(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
        self.under_way = self.under_way.saturating_add(count as u64);
        if count > 0 {
            self.full_since = None;
        }
    }

    pub(super) fn delivered(&mut self, count: usize) {
        self.under_way = self.under_way.saturating_sub(count as u64);
        self.counts.delivered = self.counts.delivered.saturating_add(count as u64);
    }

    pub(super) fn listen(&mut self, listening: Listening, written: u64) {
        self.listening = listening;
        self.full_since = None;
        if listening == Listening::Gone {
            self.counts.lost = self.counts.lost.saturating_add(self.waiting(written));
            (self.position, self.under_way) = (written, 0);
        }
    }

    pub(super) fn has_all(&self, written: u64) -> bool {
        self.position == written && self.under_way == 0
    }

    /// How many bytes somebody may wait for that it has not got yet.
    pub(super) fn left_over(&self, written: u64, ended: bool) -> u64 {
        match self.listening {
            Listening::Reads => self.waiting(written),
            Listening::Fails if ended => self.waiting(written),
            Listening::Fails | Listening::Gone => 0,
        }
    }

    pub(super) fn counts_of(&self, written: u64) -> Counts {
        Counts { waiting: self.waiting(written), ..self.counts.clone() }
    }

    fn waiting(&self, written: u64) -> u64 {
        written.saturating_sub(self.position).saturating_add(self.under_way)
    }
}
