//! From token buckets to limits.

use vmcell::{Limits, RateLimit};

use crate::api::{Bucket, RateLimiter};
use crate::fault::Fault;

/// The most that a limit can be; more is none.
const MOST: u64 = 1 << 40;

/// The limits of a disk, or of one direction of a card, which `what` names.
pub fn limits(what: &str, limiter: Option<&RateLimiter>) -> Result<Limits, Fault> {
    let mut limits = Limits::new();
    if let Some(limiter) = limiter {
        limits.bytes = rate(&format!("{what}: bandwidth"), limiter.bandwidth.as_ref())?;
        limits.operations = rate(&format!("{what}: ops"), limiter.ops.as_ref())?;
    }
    Ok(limits)
}

/// As much at once as the bucket holds, and as much a second as it takes in.
pub fn rate(what: &str, bucket: Option<&Bucket>) -> Result<Option<RateLimit>, Fault> {
    let Some(bucket) = bucket.filter(|bucket| bucket.limits()) else { return Ok(None) };
    let a_second = u128::from(bucket.size).saturating_mul(1000).checked_div(bucket.refill_time.into());
    let a_second = u64::try_from(a_second.unwrap_or_default()).unwrap_or(MOST).min(MOST);
    if a_second == 0 {
        let Bucket { size, refill_time, .. } = bucket;
        let message = format!(
            "{what}: a bucket of {size} that takes {refill_time} ms to fill is less than 1 a second, the least"
        );
        return Err(Fault::new(message));
    }
    Ok(Some(RateLimit::per_second(a_second).burst(bucket.size.min(MOST))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: u64, refill_time: u64) -> Option<(u64, u64)> {
        let rate = rate("drive a: ops", Some(&Bucket { size, one_time_burst: None, refill_time })).unwrap();
        rate.map(|rate| (rate.per_second, rate.burst))
    }

    #[test]
    fn a_bucket_is_as_much_a_second_as_it_takes_in_and_as_much_at_once_as_it_holds() {
        assert_eq!(of(1000, 100), Some((10_000, 1000)));
        assert_eq!(of(100, 100_000), Some((1, 100)));
        assert_eq!((of(0, 100), of(100, 0)), (None, None));
        assert_eq!(of(u64::MAX, 1), Some((MOST, MOST)));
    }

    #[test]
    fn less_than_one_a_second_is_refused() {
        let refused = rate("drive a: ops", Some(&Bucket { size: 1, one_time_burst: None, refill_time: 1001 }));
        let message = "drive a: ops: a bucket of 1 that takes 1001 ms to fill is less than 1 a second, the least";
        assert_eq!(refused.unwrap_err().message(), message);
    }
}
