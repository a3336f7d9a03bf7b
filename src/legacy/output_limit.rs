//! A limit on how much of the guest's output its readers may take. What they may not take yet stays in the buffer, which fills up then.

use std::time::Instant;

use crate::config::RateLimit;
use crate::limit::TokenBucket;

/// Nothing is given to readers in crumbs: output waits until there is as much as this, if there is so much of it.
const LEAST: u64 = 256;

pub(super) struct OutputLimit {
    bucket: TokenBucket,
    /// Readers may take what was written before this position.
    position: u64,
    /// Output waits, and that was counted.
    waits: bool,
    count: u64,
}

impl OutputLimit {
    pub(super) fn new(rate: RateLimit) -> Self {
        Self { bucket: TokenBucket::new(rate, Instant::now()), position: 0, waits: false, count: 0 }
    }

    /// Up to which position readers may take.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How often output had to wait.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Lets readers take more of what was `written`, of which that before `oldest` is gone and costs nothing. Says when there will be
    /// more, if there is any left.
    pub(super) fn release(&mut self, oldest: u64, written: u64, now: Instant) -> Option<Instant> {
        self.position = self.position.max(oldest);
        let there = self.bucket.look(now);
        let waiting = written.saturating_sub(self.position);
        if self.until(waiting).is_none() {
            let released = there.min(waiting);
            self.bucket.take(released);
            self.position = self.position.saturating_add(released);
            self.waits &= released == 0;
        }
        let until = self.until(written.saturating_sub(self.position))?;
        if !std::mem::replace(&mut self.waits, true) {
            self.count = self.count.saturating_add(1);
        }
        Some(until)
    }

    /// When as much can be taken as is worth it; `None` if that is now, or there is nothing.
    fn until(&self, waiting: u64) -> Option<Instant> {
        self.bucket.when(waiting.min(LEAST).min(self.bucket.burst()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn output_is_released_at_the_limits_pace_and_what_was_lost_costs_nothing() {
        let mut limit = OutputLimit::new(RateLimit::per_second(1000).burst(1000));
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(limit.release(0, 600, now), None);
        assert_eq!(limit.release(0, 600, now), None, "there is nothing more");
        assert_eq!(limit.release(0, 2000, now), Some(now + Duration::from_millis(256)));
        assert_eq!((limit.position(), limit.count()), (1000, 1));
        assert_eq!(limit.release(0, 2000, now), Some(now + Duration::from_millis(256)));
        assert_eq!((limit.position(), limit.count()), (1000, 1), "a wait is counted once");
        let later = now + Duration::from_millis(256);
        assert_eq!(limit.release(0, 2000, later), Some(later + Duration::from_millis(256)));
        assert_eq!((limit.position(), limit.count()), (1256, 2));
        assert_eq!(limit.release(1900, 2000, later + Duration::from_millis(100)), None);
        assert_eq!(limit.position(), 2000);
    }
}
