//! Limits on what a device does.

mod bucket;

pub(crate) use bucket::TokenBucket;
