//! What a bucket gives, over any window.

use proptest::prelude::*;

use super::*;

fn limit(per_second: u64, burst: u64) -> RateLimit {
    RateLimit::per_second(per_second).burst(burst)
}

impl TokenBucket {
    /// Takes up to `most`, but no less than `least`, of which more than the burst counts as the burst.
    fn take_some(&mut self, now: Instant, least: u64, most: u64) -> Result<u64, Instant> {
        let there = self.look(now);
        self.when(least.min(self.burst()).max(1)).map_or(Ok(()), Err)?;
        self.take(there.min(most));
        Ok(there.min(most))
    }
}

#[test]
fn a_full_bucket_gives_its_burst_and_then_what_time_brings() {
    let now = Instant::now();
    let mut bucket = TokenBucket::new(limit(1000, 10), now);
    assert_eq!(bucket.take_some(now, 1, 100), Ok(10));
    let soon = now + Duration::from_millis(1);
    assert_eq!(bucket.take_some(now, 1, 100), Err(soon));
    assert_eq!(bucket.take_some(soon, 1, 100), Ok(1));
    assert_eq!(bucket.take_some(soon, 5, 100), Err(now + Duration::from_millis(6)));
    assert_eq!(bucket.take_some(now + Duration::from_secs(9), 1, 100), Ok(10), "it holds no more than its burst");
}

#[test]
fn more_than_the_burst_is_given_as_the_burst() {
    let now = Instant::now();
    let mut bucket = TokenBucket::new(limit(1, 10), now);
    assert_eq!(bucket.take_some(now, 64, 64), Ok(10));
    assert_eq!(bucket.take_some(now, 64, 64), Err(now + Duration::from_secs(10)));
}

#[test]
fn a_clock_that_stands_still_or_goes_back_brings_nothing() {
    let begin = Instant::now();
    let now = begin + Duration::from_secs(1);
    let mut bucket = TokenBucket::new(limit(1000, 10), now);
    assert_eq!(bucket.take_some(now, 1, 10), Ok(10));
    assert!(bucket.take_some(begin, 1, 1).is_err());
    assert!(bucket.take_some(now, 1, 1).is_err());
}

#[test]
fn another_limit_keeps_what_is_there_up_to_its_burst() {
    let now = Instant::now();
    let mut bucket = TokenBucket::new(limit(1000, 100), now);
    bucket.take(60);
    bucket.set(limit(1, 30), now);
    assert_eq!((bucket.look(now), bucket.burst()), (30, 30));
    bucket.take(30);
    bucket.set(limit(1000, 1000), now);
    assert_eq!(bucket.look(now), 0, "setting it again gives no second burst");
    bucket.put_back(2000);
    assert_eq!(bucket.look(now), 1000);
}

proptest! {
    /// By exact arithmetic, between any two of the moments at which something was given.
    #[test]
    fn over_no_window_is_more_given_than_the_limit_allows(
        per_second in 1..=1u64 << 40,
        burst in 1..=1u64 << 40,
        steps in prop::collection::vec((0..=2_000_000_000u64, 0..=1u64 << 41, 0..=1u64 << 41), 1..40),
    ) {
        let begin = Instant::now();
        let mut bucket = TokenBucket::new(limit(per_second, burst), begin);
        let (mut nanos, mut given) = (0u64, Vec::new());
        for (wait, least, more) in steps {
            nanos += wait;
            if let Ok(taken) = bucket.take_some(begin + Duration::from_nanos(nanos), least, least + more) {
                given.push((nanos, taken));
            }
        }
        for (first, (from, _)) in given.iter().enumerate() {
            let mut sum = 0u128;
            for (to, taken) in &given[first..] {
                sum += u128::from(*taken);
                let allowed = u128::from(burst) * PARTS + u128::from(to - from) * u128::from(per_second);
                prop_assert!(sum * PARTS <= allowed, "{sum} in {} ns", to - from);
            }
        }
    }

    #[test]
    fn at_the_moment_that_it_names_it_gives_what_was_asked_for(
        per_second in 1..=1u64 << 40,
        burst in 1..=1u64 << 40,
        least in 1..=1u64 << 41,
    ) {
        let begin = Instant::now();
        let mut bucket = TokenBucket::new(limit(per_second, burst), begin);
        prop_assert_eq!(bucket.take_some(begin, 1, u64::MAX), Ok(burst));
        let then = bucket.take_some(begin, least, u64::MAX).unwrap_err();
        if let Some(before) = then.checked_sub(Duration::from_nanos(1)).filter(|before| *before > begin) {
            prop_assert_eq!(bucket.take_some(before, least, u64::MAX), Err(then));
        }
        prop_assert!(bucket.take_some(then, least, u64::MAX).is_ok_and(|taken| taken >= least.min(burst)));
    }
}
