//! A source of random bytes as the guest sees it.

use super::rate::RateLimit;
use crate::error::Result;

/// A device that gives the guest random bytes of the host's kernel, as plain data (virtio 1.2, section 5.4).
///
/// ```
/// use vmcell::{RateLimit, RngConfig};
///
/// let rng = RngConfig::new().rate(RateLimit::per_second(64 << 10));
/// assert_eq!(rng.rate.unwrap().burst, 64 << 10);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(
        deny_unknown_fields,
        expecting = "an object such as {} or { \"rate\": { \"per_second\": 1024, \"burst\": 4096 } }"
    )
)]
#[non_exhaustive]
pub struct RngConfig {
    /// How many bytes the guest gets at most. The default is no limit: it then gets as many as the I/O thread makes in the turns that it
    /// shares with other devices.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub rate: Option<RateLimit>,
}

impl RngConfig {
    /// One without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many bytes the guest gets at most.
    #[must_use]
    pub fn rate(mut self, rate: RateLimit) -> Self {
        self.rate = Some(rate);
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.rate.map_or(Ok(()), |rate| rate.validate())
    }
}
