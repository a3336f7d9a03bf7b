//! A token bucket: what may be done is what is in it, and it fills up with time.

use std::time::{Duration, Instant};

use crate::config::RateLimit;

/// Parts of a unit: with these, a nanosecond's share of a limit is a whole number, and nothing is lost by rounding.
const PARTS: u128 = 1_000_000_000;

/// Gives no more in any window of time than the burst and what the limit makes of the window's length.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    limit: RateLimit,
    /// What is in it, in parts.
    parts: u128,
    /// When that was so.
    at: Instant,
}

impl TokenBucket {
    /// A full one.
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Self {
        let mut bucket = Self { limit, parts: 0, at: now };
        bucket.parts = bucket.room();
        bucket
    }

    /// Takes up to `most`, but no less than `least`, of which more than the burst counts as the burst.
    ///
    /// # Errors
    /// The moment from which on there is as much as `least`, if there is not now.
    pub(crate) fn take(&mut self, now: Instant, least: u64, most: u64) -> Result<u64, Instant> {
        self.fill(now);
        let least = parts(least.min(self.limit.burst).max(1));
        if let Some(missing) = least.checked_sub(self.parts).filter(|missing| *missing > 0) {
            let nanos = missing.div_ceil(self.limit.per_second.max(1).into());
            let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            return Err(now.checked_add(wait).unwrap_or(now));
        }
        let taken =
            self.parts.checked_div(PARTS).and_then(|whole| u64::try_from(whole).ok()).unwrap_or(u64::MAX).min(most);
        self.parts = self.parts.saturating_sub(parts(taken));
        Ok(taken)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let more = passed.saturating_mul(self.limit.per_second.into());
        self.parts = self.parts.saturating_add(more).min(self.room());
        self.at = self.at.max(now);
    }

    fn room(&self) -> u128 {
        parts(self.limit.burst)
    }
}

fn parts(units: u64) -> u128 {
    u128::from(units).saturating_mul(PARTS)
}

#[cfg(test)]
#[path = "bucket_test.rs"]
mod tests;
