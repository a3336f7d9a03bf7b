//! One file's access to a ring, as its owner and the ring see it.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::flight::Transferred;
use crate::sys::{lock, lock_if_free};

/// How long the end of a ring, or of a port, waits for what is in flight.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// One file's access to a ring. Dropping it waits for a moment until nothing of the file is in flight, unless the ring's own
/// thread drops it; what lasts longer ends by itself.
pub(crate) struct Port {
    pub(super) place: u32,
    pub(super) side: Arc<Side>,
    pub(super) exits: Arc<Exits>,
}

/// The ring's side of a port.
pub(super) struct Place {
    /// Whatever must live until nothing is in flight any more.
    pub(super) keeper: Arc<dyn Any + Send + Sync>,
    pub(super) done: VecDeque<Transferred>,
    pub(super) in_flight: usize,
    pub(super) has_news: bool,
    /// Its owner has gone.
    pub(super) has_left: bool,
    pub(super) side: Arc<Side>,
    /// The jam in which no kernel thread was free for it.
    pub(super) jam: Option<u32>,
}

/// What a port and its ring share.
pub(super) struct Side {
    /// Tells the owner that there is something to take.
    pub(super) tell: Box<dyn Fn() + Send + Sync>,
    /// The ring has forgotten the port.
    is_over: Mutex<bool>,
    over: Condvar,
}

/// The ports of a ring that were dropped, and that it is to forget.
pub(super) struct Exits {
    places: Mutex<Vec<u32>>,
    any: AtomicBool,
    /// Makes the ring's thread look.
    call: Box<dyn Fn() + Send + Sync>,
    thread: ThreadId,
}

impl Place {
    pub(super) fn new(keeper: Arc<dyn Any + Send + Sync>, side: Arc<Side>) -> Self {
        Self { keeper, done: VecDeque::new(), in_flight: 0, has_news: false, has_left: false, side, jam: None }
    }

    pub(super) fn end(self) {
        let Self { keeper, side, .. } = self;
        drop(keeper);
        *lock(&side.is_over) = true;
        side.over.notify_all();
    }
}

impl Side {
    pub(super) fn new(tell: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { tell: Box::new(tell), is_over: Mutex::new(false), over: Condvar::new() })
    }
}

impl Exits {
    /// For a ring of the calling thread.
    pub(super) fn new(call: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (places, any) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { places, any, call: Box::new(call), thread: thread::current().id() })
    }

    pub(super) fn are_any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Gives each port that was dropped to `forget`.
    pub(super) fn drain(&self, mut forget: impl FnMut(u32)) {
        if !self.any.swap(false, Ordering::SeqCst) {
            return;
        }
        let Some(mut places) = lock_if_free(&self.places) else {
            return self.any.store(true, Ordering::SeqCst);
        };
        places.drain(..).for_each(&mut forget);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        lock(&self.exits.places).push(self.place);
        self.exits.any.store(true, Ordering::SeqCst);
        (self.exits.call)();
        if self.exits.thread != thread::current().id() {
            let is_over = lock(&self.side.is_over);
            let waited = self.side.over.wait_timeout_while(is_over, PATIENCE, |is_over| !*is_over);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}
