//! `/entropy`: random bytes for the guest.

use serde::{Deserialize, Serialize};

use super::limiter::RateLimiter;

/// A source of random bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// How many the guest gets.
    pub rate_limiter: Option<RateLimiter>,
}
