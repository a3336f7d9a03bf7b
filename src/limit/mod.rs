//! Limits on what devices do: buckets that fill up with time, groups that share them, and what a request has to pay.

mod bucket;
mod cost;
mod group;
mod limiter;

pub(crate) use bucket::TokenBucket;
pub(crate) use cost::Cost;
pub use group::LimitGroup;
pub(crate) use limiter::Limiter;
