//! How fast bytes are written.

use std::thread;
use std::time::{Duration, Instant};

/// So many bytes a second, if that is limited.
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    began: Instant,
    done: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, began: Instant::now(), done: 0 }
    }

    /// Waits until so many bytes more may have been written.
    pub(super) fn keep(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        self.done = self.done.saturating_add(bytes);
        let nanos = u128::from(self.done).saturating_mul(1_000_000_000).checked_div(rate.into()).unwrap_or_default();
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        thread::sleep(due.saturating_sub(self.began.elapsed()));
    }
}
