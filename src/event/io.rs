//! The interface of a participant to its thread, lent for one call.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::Place;
use super::ring::RingSlot;
use super::token::{Cause, Event, Token};
use super::waker::Waker;
use crate::memory::{BufferPool, FileRing, HostBuffer};
use crate::sys::sync::atomic::{AtomicBool, Ordering};

/// The longest that a turn lasts, as far as it is up to the participant to end it.
pub const TURN_TIME: Duration = Duration::from_micros(500);

/// The number of bytes after which a turn is over.
pub const TURN_BYTES: u64 = 256 << 10;

/// The number of bytes after which a turn looks at the clock again: for a small request, doing so each time shows.
const LOOK_BYTES: u64 = 16 << 10;

/// The thread's side of a participant, lent to it for one call. A device and its backend use it to get tokens, wakers and
/// buffers, and to learn when it is time to give others their turn.
pub struct Io<'a> {
    pub(super) own: &'a mut Own,
    pub(super) pool: &'a BufferPool,
    pub(super) ring: &'a mut RingSlot,
    pub(super) turn: Turn,
}

/// How far a turn has come.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// By the clock, in a turn that does not end by it, too.
    now: Instant,
    began: Instant,
    bytes: u64,
    /// The clock is looked at again when there are so many.
    next_look: Cell<u64>,
}

/// What a thread keeps for a participant from call to call.
pub(super) struct Own {
    place: Arc<Place>,
    next_token: u32,
    wakers: Vec<(Token, Arc<AtomicBool>)>,
    info_changed: bool,
    given_up: Option<String>,
}

impl Io<'_> {
    /// Makes a token that this participant has not used before, for [`Wants`](super::Wants) and for wakers. Make each one
    /// once, usually in `attach`, and keep it.
    pub fn token(&mut self) -> Token {
        let token = Token(self.own.next_token);
        self.own.next_token = self.own.next_token.wrapping_add(1);
        token
    }

    /// Makes a waker. Each use of it is reported as an event with `token` and [`Cause::Woken`](super::Cause::Woken).
    pub fn waker(&mut self, token: Token) -> Waker {
        // A flag that only we hold belongs to a waker that is gone; if it was used before that, its event is still to come.
        self.own.wakers.retain_mut(|(_, flag)| Arc::get_mut(flag).is_none_or(|flag| *flag.get_mut()));
        let flag = Arc::new(AtomicBool::new(false));
        self.own.wakers.push((token, Arc::clone(&flag)));
        Waker { place: Arc::clone(&self.own.place), flag }
    }

    /// Lends a buffer of `len` zero bytes from the thread's bounded pool; dropping the buffer gives it back. Returns `None` if
    /// the pool is used up now, or if `len` is above [`HostBuffer::MAX_LEN`].
    pub fn bounce(&mut self, len: usize) -> Option<HostBuffer> {
        self.pool.take(len)
    }

    /// Returns the thread's ring for files. What is begun on it is handed to the kernel after the turns that are due.
    ///
    /// # Errors
    /// Why the thread has none.
    pub(crate) fn ring(&mut self) -> Result<&mut FileRing, &str> {
        self.ring.get()
    }

    /// Counts bytes that were moved in this turn, or work that took as long as moving them. The disk and the NIC count the
    /// bytes of each operation and frame; a backend only counts work that it adds, such as encryption.
    pub fn charge(&mut self, bytes: u64) {
        self.turn.bytes = self.turn.bytes.saturating_add(bytes);
    }

    /// Whether anything was charged in this turn.
    pub(crate) fn has_charged(&self) -> bool {
        self.turn.bytes > 0
    }

    /// Whether the turn is over, by its time or its bytes. A participant that has more to do then asks for
    /// [another turn](super::Wants::again).
    pub fn spent(&self) -> bool {
        self.turn.is_over()
    }

    /// When the turn began, for what need not be told the time more exactly than to the length of a turn.
    pub(crate) fn now(&self) -> Instant {
        self.turn.now
    }

    /// From now on this turn ends by its bytes alone, so that it is the same each time.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn ignore_clock(&mut self) {
        // A turn that begins in the future has lasted no time.
        let future = self.turn.began.checked_add(Duration::from_secs(3600));
        self.turn.began = future.unwrap_or(self.turn.began);
    }

    /// Says that something about the device has changed, such as a disk's size or a link's state: the backend's `info` and the
    /// device's `config` are asked for again, and the driver is told.
    pub fn info_changed(&mut self) {
        self.own.info_changed = true;
    }

    /// Whether that was said since the last call of this.
    pub(crate) fn take_info_changed(&mut self) -> bool {
        std::mem::take(&mut self.own.info_changed)
    }

    /// Says that the backend or device that is being called can never go on, and why: its storage is lost, for instance. Once the
    /// call has returned, it is treated like one that has panicked: it is not called again but dropped, the driver is told
    /// that the device needs a reset, and [`Vm::device_failures`](crate::Vm::device_failures) says why. The layers on top of a backend
    /// share its fate.
    ///
    /// A backend that can still serve some requests fails the others, rather than give up.
    pub fn give_up(&mut self, why: impl Into<String>) {
        self.own.given_up = Some(why.into());
    }

    /// Why the one that was called gives up, if it said so since the last call of this.
    pub(crate) fn take_given_up(&mut self) -> Option<String> {
        self.own.given_up.take()
    }
}

impl Turn {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { now, began: now, bytes: 0, next_look: Cell::new(1) }
    }

    fn is_over(&self) -> bool {
        if self.bytes >= TURN_BYTES {
            return true;
        }
        // Not before anything was done, so that each turn gets somewhere.
        if self.bytes < self.next_look.get() {
            return false;
        }
        // By the clock on the wall, which costs no system call: a turn that was interrupted ends too early, never too late.
        let is_over = self.began.elapsed() >= TURN_TIME;
        if !is_over {
            self.next_look.set(self.bytes.saturating_add(LOOK_BYTES));
        }
        is_over
    }
}

impl Own {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, next_token: 0, wakers: Vec::new(), info_changed: false, given_up: None }
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
