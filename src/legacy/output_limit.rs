//! A limit on how much of the guest's output its readers may take. What they may not take yet stays in the buffer, which fills up then.

use std::time::Instant;

use crate::config::RateLimit;
use crate::limit::TokenBucket;

/// Nothing is given to readers in crumbs: output waits until there is as much as this, if there is so much of it.
const LEAST: u64 = 256;

#[derive(Default)]
pub(super) struct OutputLimit {
    /// If there is a limit.
    bucket: Option<TokenBucket>,
    /// Readers may then take what was written before this position.
    position: u64,
    /// Output waits, and that was counted.
    waits: bool,
    count: u64,
}

impl OutputLimit {
    /// Another limit from now on, or none. What was `written` without one may be taken.
    pub(super) fn set(&mut self, rate: Option<RateLimit>, written: u64, now: Instant) {
        if self.bucket.is_none() {
            self.position = written;
        }
        TokenBucket::change(&mut self.bucket, rate, now);
        self.waits &= rate.is_some();
    }

    /// Up to which position readers may take, of what was `written`.
    pub(super) fn position(&self, written: u64) -> u64 {
        if self.bucket.is_some() { self.position } else { written }
    }

    /// How often output had to wait.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Lets readers take more of what was `written`, of which that before `oldest` is gone and costs nothing. Says when there will be
    /// more, if there is any left.
    pub(super) fn release(&mut self, oldest: u64, written: u64, now: Instant) -> Option<Instant> {
        let bucket = self.bucket.as_mut()?;
        self.position = self.position.max(oldest);
        let there = bucket.look(now);
        let waiting = written.saturating_sub(self.position);
        if until(bucket, waiting).is_none() {
            let released = there.min(waiting);
            bucket.take(released);
            self.position = self.position.saturating_add(released);
            self.waits &= released == 0;
        }
        let until = until(bucket, written.saturating_sub(self.position))?;
        if !std::mem::replace(&mut self.waits, true) {
            self.count = self.count.saturating_add(1);
        }
        Some(until)
    }
}

/// When as much can be taken as is worth it; `None` if that is now, or there is nothing.
fn until(bucket: &TokenBucket, waiting: u64) -> Option<Instant> {
    bucket.when(waiting.min(LEAST).min(bucket.burst()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limited(rate: RateLimit) -> OutputLimit {
        let mut limit = OutputLimit::default();
        limit.set(Some(rate), 0, Instant::now());
        limit
    }

    #[test]
    fn another_limit_counts_from_where_the_one_before_stood_or_from_what_is_there() {
        let mut limit = limited(RateLimit::per_second(1000).burst(1000));
        let now = Instant::now() + Duration::from_secs(1);
        assert!(limit.release(0, 3000, now).is_some());
        limit.set(Some(RateLimit::per_second(1).burst(500)), 3000, now);
        assert!(limit.release(0, 3000, now).is_some_and(|at| at > now + Duration::from_secs(200)));
        assert_eq!((limit.position(3000), limit.count()), (1000, 1));
        limit.set(None, 3000, now);
        assert_eq!(limit.release(0, 4000, now), None);
        assert_eq!((limit.position(4000), limit.count()), (4000, 1));
        limit.set(Some(RateLimit::per_second(100).burst(500)), 5000, now);
        assert_eq!((limit.position(6000), limit.release(0, 5500, now)), (5000, None));
        assert_eq!(limit.position(6000), 5500);
        assert!(limit.release(0, 6000, now).is_some());
        assert_eq!(limit.count(), 2);
    }

    #[test]
    fn output_is_released_at_the_limits_pace_and_what_was_lost_costs_nothing() {
        let mut limit = limited(RateLimit::per_second(1000).burst(1000));
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(limit.release(0, 600, now), None);
        assert_eq!(limit.release(0, 600, now), None, "there is nothing more");
        assert_eq!(limit.release(0, 2000, now), Some(now + Duration::from_millis(256)));
        assert_eq!((limit.position(2000), limit.count()), (1000, 1));
        assert_eq!(limit.release(0, 2000, now), Some(now + Duration::from_millis(256)));
        assert_eq!((limit.position(2000), limit.count()), (1000, 1), "a wait is counted once");
        let later = now + Duration::from_millis(256);
        assert_eq!(limit.release(0, 2000, later), Some(later + Duration::from_millis(256)));
        assert_eq!((limit.position(2000), limit.count()), (1256, 2));
        assert_eq!(limit.release(1900, 2000, later + Duration::from_millis(100)), None);
        assert_eq!(limit.position(2000), 2000);
    }
}
