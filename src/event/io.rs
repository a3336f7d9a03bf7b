//! What a participant is lent for one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::place::Place;
use super::token::{Cause, Event, Token};
use super::waker::Waker;
use crate::memory::{BufferPool, HostBuffer};

/// How long a turn lasts at most.
pub const TURN_TIME: Duration = Duration::from_micros(500);

/// How many bytes are moved in a turn at most.
pub const TURN_BYTES: u64 = 256 << 10;

/// What a thread lends to a participant for the time of one call: by it a device and its backend make themselves known to
/// the thread, and learn when it is time to give others their turn.
pub struct Io<'a> {
    pub(super) own: &'a mut Own,
    pub(super) pool: &'a BufferPool,
    pub(super) turn: Turn,
}

/// How far a turn has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    began: Instant,
    bytes: u64,
}

/// What a thread keeps for a participant from call to call.
pub(super) struct Own {
    place: Arc<Place>,
    next_token: u32,
    wakers: Vec<(Token, Arc<AtomicBool>)>,
    info_changed: bool,
}

impl Io<'_> {
    /// A token that this participant has not used before. For [`Wants`](super::Wants); made once, usually while attaching.
    pub fn token(&mut self) -> Token {
        let token = Token(self.own.next_token);
        self.own.next_token = self.own.next_token.wrapping_add(1);
        token
    }

    /// Makes a waker, which reports itself by `token`.
    pub fn waker(&mut self, token: Token) -> Waker {
        // A flag that only we hold belongs to a waker that is gone; if it was used before that, its event is still to come.
        self.own.wakers.retain_mut(|(_, flag)| Arc::get_mut(flag).is_none_or(|flag| *flag.get_mut()));
        let flag = Arc::new(AtomicBool::new(false));
        self.own.wakers.push((token, Arc::clone(&flag)));
        Waker { place: Arc::clone(&self.own.place), flag }
    }

    /// A buffer of `len` zero bytes from the thread's bounded pool; `None` if it is used up now, or `len` above
    /// [`HostBuffer::MAX_LEN`].
    pub fn bounce(&mut self, len: usize) -> Option<HostBuffer> {
        self.pool.take(len)
    }

    /// Counts bytes that were moved, or work that took as long as moving them.
    pub fn charge(&mut self, bytes: u64) {
        self.turn.bytes = self.turn.bytes.saturating_add(bytes);
    }

    /// Whether the turn is over, by its time or its bytes. Something that has more to do asks for
    /// [another](super::Wants::again).
    pub fn spent(&self) -> bool {
        // By the clock on the wall, which costs no system call: a turn that was interrupted ends too early, never too late. But
        // not before anything was done, so that each turn gets somewhere.
        let bytes = self.turn.bytes;
        bytes >= TURN_BYTES || (bytes > 0 && self.turn.began.elapsed() >= TURN_TIME)
    }

    /// From now on this turn ends by its bytes alone, so that it is the same each time.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn ignore_clock(&mut self) {
        // A turn that begins in the future has lasted no time.
        let future = self.turn.began.checked_add(Duration::from_secs(3600));
        self.turn.began = future.unwrap_or(self.turn.began);
    }

    /// Says that what the device or its backend answers to `info` is another than before: a disk grew, a link went down.
    pub fn info_changed(&mut self) {
        self.own.info_changed = true;
    }

    /// Whether that was said since the last call of this.
    pub(crate) fn take_info_changed(&mut self) -> bool {
        std::mem::take(&mut self.own.info_changed)
    }
}

impl Turn {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), bytes: 0 }
    }
}

impl Own {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, next_token: 0, wakers: Vec::new(), info_changed: false }
    }

    /// Adds an event for each waker that was used.
    pub(super) fn collect_wakes(&self, events: &mut Vec<Event>) {
        for (token, flag) in &self.wakers {
            if flag.load(Ordering::SeqCst) && flag.swap(false, Ordering::SeqCst) {
                events.push(Event::new(*token, Cause::Woken));
            }
        }
    }
}
