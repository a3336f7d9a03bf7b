//! Where a participant lives, and how its thread is woken.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::polling::Settings;
use super::wake_set::WakeSet;
use crate::error::Result;
use crate::meter::Tally;
use crate::sys::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sys::sync::thread::{self, ThreadId};
use crate::sys::{EventFd, thread_cpu_time};

/// By what other threads wake the I/O thread.
pub(super) struct Bell {
    pub(super) woken: WakeSet,
    /// Some other reason to look up from waiting.
    pub(super) called: AtomicBool,
    pub(super) sleeping: AtomicBool,
    pub(super) event: EventFd,
    /// The thread itself, once it runs.
    thread: OnceLock<ThreadId>,
    /// It did not come back to its loop in time: nobody waits for it until it has.
    pub(super) stuck: AtomicBool,
    pub(super) meter: Meter,
    pub(super) polling: Settings,
    /// Serves the participants once, on the calling thread, if they have no thread of their own.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) inline: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// How many turns there were, and how long they take, if somebody wants to know.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Meter {
    turns: Tally,
    measures: AtomicBool,
    longest_nanos: AtomicU64,
}

impl Meter {
    /// From now on, or for now, turns are measured.
    pub(super) fn start(&self) {
        self.longest_nanos.store(0, Ordering::Relaxed);
        self.measures.store(true, Ordering::Relaxed);
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(super) fn is_measuring(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    /// Runs a turn, by the thread, and measures it if that is wanted.
    pub(super) fn measure<R>(&self, turn: impl FnOnce() -> R) -> R {
        self.turns.add(1);
        if !self.measures.load(Ordering::Relaxed) {
            return turn();
        }
        let began = thread_cpu_time();
        let result = turn();
        let nanos = thread_cpu_time().saturating_sub(began).as_nanos();
        self.longest_nanos.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }
}

impl Bell {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            woken: WakeSet::new(),
            called: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            event: EventFd::new()?,
            thread: OnceLock::new(),
            stuck: AtomicBool::new(false),
            meter: Meter::default(),
            polling: Settings::new(),
            #[cfg(any(test, feature = "test-util"))]
            inline: OnceLock::new(),
        })
    }

    /// The calling thread is the one that serves.
    pub(super) fn settle(&self) {
        let _ = self.thread.set(thread::current().id());
    }

    /// Whether the calling thread is the one that serves.
    pub(super) fn is_current(&self) -> bool {
        self.thread.get().is_some_and(|id| *id == thread::current().id())
    }

    /// Has the thread look at its posts.
    pub(super) fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
        self.rouse();
    }

    /// Whether something happened since it was last looked at.
    pub(super) fn is_rung(&self) -> bool {
        self.called.load(Ordering::SeqCst) || !self.woken.is_empty()
    }

    // The thread says that it sleeps, then looks whether it is rung; others ring, then look whether it sleeps. So one of the
    // two always sees the other, and a thread that is awake costs no system call.
    fn rouse(&self) {
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.event.signal();
        }
    }
}

/// Where a participant lives: known to all that may wake it.
pub(super) struct Place {
    bell: Arc<Bell>,
    slot: AtomicUsize,
    removed: AtomicBool,
}

impl Place {
    /// Not on the thread yet, or not any more.
    const NOWHERE: usize = usize::MAX;

    pub(super) fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { bell, slot: AtomicUsize::new(Self::NOWHERE), removed: AtomicBool::new(false) })
    }

    /// Gives the participant a turn. Before it has a place that does nothing: its first turn is still to come.
    pub(super) fn wake(&self) {
        let slot = self.slot.load(Ordering::SeqCst);
        if slot != Self::NOWHERE {
            self.bell.woken.add(slot);
            self.bell.rouse();
        }
    }

    /// Serves the participant on the calling thread, if it has none of its own; says whether anything was done.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn serve_inline(&self) -> bool {
        self.bell.inline.get().is_some_and(|serve| serve())
    }

    pub(super) fn settle(&self, slot: usize) {
        self.slot.store(slot, Ordering::SeqCst);
    }

    pub(super) fn slot(&self) -> Option<usize> {
        Some(self.slot.load(Ordering::SeqCst)).filter(|slot| *slot != Self::NOWHERE)
    }

    pub(super) fn leave(&self) {
        self.slot.store(Self::NOWHERE, Ordering::SeqCst);
    }

    /// From now on the participant is not called any more.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }
}
