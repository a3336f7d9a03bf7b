//! Limits as token buckets.

use serde::{Deserialize, Serialize};

/// Limits of bytes and of operations, each by a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Its tokens are bytes.
    pub bandwidth: Option<Bucket>,
    /// Its tokens are operations.
    pub ops: Option<Bucket>,
}

/// A bucket that fills up with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The most tokens that are ever in it.
    pub size: u64,
    /// Tokens that are there once, before those of the bucket are taken.
    pub one_time_burst: Option<u64>,
    /// How many milliseconds an empty one takes to be full.
    pub refill_time: u64,
}

impl Bucket {
    /// Whether it limits anything.
    pub fn limits(&self) -> bool {
        self.size > 0 && self.refill_time > 0
    }
}

impl RateLimiter {
    /// With what does not limit left out, as clients are told of it; `None` if nothing is left.
    pub fn effective(&self) -> Option<Self> {
        let kept = |bucket: Option<Bucket>| bucket.filter(Bucket::limits);
        let kept = Self { bandwidth: kept(self.bandwidth), ops: kept(self.ops) };
        (kept.bandwidth.is_some() || kept.ops.is_some()).then_some(kept)
    }

    /// With the buckets that `update` names in the place of its own.
    pub fn updated(&self, update: &Self) -> Self {
        Self { bandwidth: update.bandwidth.or(self.bandwidth), ops: update.ops.or(self.ops) }
    }
}
