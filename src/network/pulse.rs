//! Whether a machine hears, and when something was last sent to it or by it.

use std::time::Duration;

use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What others look at of a machine, without a lock.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Its driver is up and has lent buffers, and it is not paused.
    running: AtomicBool,
    /// How often its driver has begun. A pause is no beginning.
    starts: AtomicU32,
    /// When the last packet passed, in milliseconds of the network's time.
    last: AtomicU64,
}

impl Pulse {
    pub(super) fn new(now: Duration) -> Self {
        Self { running: AtomicBool::new(false), starts: AtomicU32::new(0), last: AtomicU64::new(millis(now)) }
    }

    pub(super) fn runs(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Says whether that is a change.
    pub(super) fn set_running(&self, runs: bool) -> bool {
        self.running.load(Ordering::Relaxed) != runs && self.running.swap(runs, Ordering::AcqRel) != runs
    }

    pub(super) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Acquire)
    }

    /// Its driver begins anew, and knows of nothing that was before.
    pub(super) fn started(&self) {
        self.starts.fetch_add(1, Ordering::AcqRel);
    }

    /// Packets have passed.
    pub(super) fn touch(&self, now: Duration) {
        self.last.store(millis(now), Ordering::Relaxed);
    }

    /// How long ago the last packet passed, or, if there was none, how long ago the port was made.
    pub(super) fn idle(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
