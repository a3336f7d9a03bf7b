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

    /// Another limit from now on. What is in it stays there, up to the new burst.
    pub(crate) fn set(&mut self, limit: RateLimit, now: Instant) {
        self.fill(now);
        self.limit = limit;
        self.parts = self.parts.min(self.room());
    }

    /// Another limit for what may have none: if there was one, what is in its bucket stays there; otherwise the bucket is full.
    pub(crate) fn change(bucket: &mut Option<Self>, limit: Option<RateLimit>, now: Instant) {
        match (bucket.as_mut(), limit) {
            (Some(bucket), Some(limit)) => bucket.set(limit, now),
            _ => *bucket = limit.map(|limit| Self::new(limit, now)),
        }
    }

    /// The most that is ever in it.
    pub(crate) fn burst(&self) -> u64 {
        self.limit.burst
    }

    /// What is in it now.
    pub(crate) fn look(&mut self, now: Instant) -> u64 {
        self.fill(now);
        self.parts.checked_div(PARTS).and_then(|whole| u64::try_from(whole).ok()).unwrap_or(u64::MAX)
    }

    /// When as many units have come as there would have to be, as of the last look; `None` if they are there. If they are more than the
    /// burst, some of them must be taken before then.
    pub(crate) fn when(&self, units: u64) -> Option<Instant> {
        let missing = parts(units).checked_sub(self.parts).filter(|missing| *missing > 0)?;
        Some(self.after(missing))
    }

    /// When it is full, as of the last look.
    pub(crate) fn when_full(&self) -> Instant {
        self.after(self.room().saturating_sub(self.parts))
    }

    /// Takes units that are in it.
    pub(crate) fn take(&mut self, units: u64) {
        self.parts = self.parts.saturating_sub(parts(units));
    }

    /// Puts units back that were taken and not used.
    pub(crate) fn put_back(&mut self, units: u64) {
        self.parts = self.parts.saturating_add(parts(units)).min(self.room());
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        let more = passed.saturating_mul(self.limit.per_second.into());
        self.parts = self.parts.saturating_add(more).min(self.room());
        self.at = self.at.max(now);
    }

    fn after(&self, missing: u128) -> Instant {
        let nanos = missing.div_ceil(self.limit.per_second.max(1).into());
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.at.checked_add(wait).unwrap_or(self.at)
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
