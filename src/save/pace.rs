//! How fast bytes are written, and until when.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// So many bytes a second, if that is limited, until it is broken off.
pub(crate) struct Pace<'a> {
    bytes_per_second: Option<u64>,
    began: Instant,
    done: u64,
    is_broken_off: &'a dyn Fn() -> bool,
}

impl<'a> Pace<'a> {
    /// One that nobody breaks off.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, began: Instant::now(), done: 0, is_broken_off: &|| false }
    }

    /// As fast as can be, until `is_broken_off` says so.
    pub(crate) fn until(is_broken_off: &'a dyn Fn() -> bool) -> Self {
        Self { is_broken_off, ..Self::new(None) }
    }

    /// Waits until so many bytes more may have been written.
    ///
    /// # Errors
    /// It is broken off.
    pub(super) fn keep(&mut self, bytes: u64) -> io::Result<()> {
        if (self.is_broken_off)() {
            return Err(io::Error::other("it was broken off"));
        }
        let Some(rate) = self.bytes_per_second else { return Ok(()) };
        self.done = self.done.saturating_add(bytes);
        let nanos = u128::from(self.done).saturating_mul(1_000_000_000).checked_div(rate.into()).unwrap_or_default();
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        thread::sleep(due.saturating_sub(self.began.elapsed()));
        Ok(())
    }
}
