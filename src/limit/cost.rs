//! What a request counts, and the buckets for it.

use std::time::Instant;

use super::bucket::TokenBucket;
use crate::config::Limits;

/// How much of each limit a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
}

impl Cost {
    pub(crate) fn new(operations: u64, bytes: u64) -> Self {
        Self { operations, bytes }
    }

    pub(super) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// Whether as much is there, if anything is.
    pub(super) fn fits(self, there: Self) -> bool {
        self.operations < there.operations && self.bytes <= there.bytes
    }

    pub(super) fn min(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    pub(super) fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, what: fn(u64, u64) -> u64) -> Self {
        Self::new(what(self.operations, other.operations), what(self.bytes, other.bytes))
    }
}

/// A bucket for each limit that there is.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    operations: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
}

impl Buckets {
    /// Other limits from now on. What is in a bucket stays there; a new one is full.
    pub(super) fn set(&mut self, limits: Limits, now: Instant) {
        TokenBucket::change(&mut self.operations, limits.operations, now);
        TokenBucket::change(&mut self.bytes, limits.bytes, now);
    }

    /// As much of `cost` as can ever be had at once.
    pub(super) fn cap(&self, cost: Cost) -> Cost {
        let burst = |bucket: &Option<TokenBucket>| bucket.as_ref().map_or(u64::MAX, TokenBucket::burst);
        cost.min(Cost::new(burst(&self.operations), burst(&self.bytes)))
    }

    /// What there is now.
    pub(super) fn look(&mut self, now: Instant) -> Cost {
        let look = |bucket: &mut Option<TokenBucket>| bucket.as_mut().map_or(u64::MAX, |bucket| bucket.look(now));
        Cost::new(look(&mut self.operations), look(&mut self.bytes))
    }

    /// When there is as much, as of the last look; `None` if it is there.
    pub(super) fn when(&self, cost: Cost) -> Option<Instant> {
        let when = |bucket: &Option<TokenBucket>, units| bucket.as_ref().and_then(|bucket| bucket.when(units));
        when(&self.operations, cost.operations).max(when(&self.bytes, cost.bytes))
    }

    /// When the first of them is full, as of the last look: from then on, what comes is lost.
    pub(super) fn when_full(&self) -> Option<Instant> {
        let buckets = [&self.operations, &self.bytes].into_iter().flatten();
        buckets.map(TokenBucket::when_full).min()
    }

    pub(super) fn take(&mut self, cost: Cost) {
        self.change(cost, TokenBucket::take);
    }

    pub(super) fn put_back(&mut self, cost: Cost) {
        self.change(cost, TokenBucket::put_back);
    }

    fn change(&mut self, cost: Cost, change: fn(&mut TokenBucket, u64)) {
        let both = [(&mut self.operations, cost.operations), (&mut self.bytes, cost.bytes)];
        both.into_iter().for_each(|(bucket, units)| bucket.iter_mut().for_each(|bucket| change(bucket, units)));
    }
}
