//! What limits a device, or one direction of a network card.

use super::rate::RateLimit;
use crate::error::Result;

/// How much a disk, or one direction of a network card, may do: how many operations and how many bytes, as plain data. By default
/// neither is limited.
///
/// What counts how much:
///
/// | | operations | bytes |
/// |---|---|---|
/// | a read or a write of a disk | 1 | its data |
/// | a flush | 1 | 0 |
/// | zeroes without data | 1 | those of its range, since the storage may have to write them |
/// | a discard | 1 for each of its ranges | 0 |
/// | a frame of a network card | 1 | its length, without the header that virtio adds |
///
/// If both are limited, a request waits until it can have both, and then takes both. One that is larger than a burst waits until the
/// limit has given it all that it needs, so that the average holds whatever the guest asks for. A frame that is received is paid for
/// once it is there, and the next one waits for that. What is refused, and the serial number, count nothing.
///
/// ```
/// use vmcell::{Limits, RateLimit};
///
/// // 2000 operations and 8 MiB a second, and 100 operations at once.
/// let limits = Limits::new().operations(RateLimit::per_second(2000).burst(100)).bytes(RateLimit::per_second(8 << 20));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"operations\": { \"per_second\": 2000 } }")
)]
#[non_exhaustive]
pub struct Limits {
    /// How many requests or frames. The default is no limit.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub operations: Option<RateLimit>,
    /// How many bytes. The default is no limit.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub bytes: Option<RateLimit>,
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the requests or frames.
    #[must_use]
    pub fn operations(mut self, rate: RateLimit) -> Self {
        self.operations = Some(rate);
        self
    }

    /// Limits the bytes.
    #[must_use]
    pub fn bytes(mut self, rate: RateLimit) -> Self {
        self.bytes = Some(rate);
        self
    }

    pub(crate) fn is_none(&self) -> bool {
        self.operations.is_none() && self.bytes.is_none()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let check =
            |rate: Option<RateLimit>, of| rate.map_or(Ok(()), |rate| rate.validate()).map_err(|error| error.about(of));
        check(self.operations, "operations")?;
        check(self.bytes, "bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_refused_says_of_what_it_is() {
        let nothing = RateLimit::per_second(0);
        let of = |limits: Limits| limits.validate().unwrap_err().to_string();
        let why = "a limit of 0 a second and 0 at once was asked for, allowed are 1 to 1099511627776";
        assert_eq!(of(Limits::new().operations(nothing)), format!("operations: {why}"));
        assert_eq!(of(Limits::new().bytes(nothing)), format!("bytes: {why}"));
        assert!(Limits::new().validate().is_ok() && Limits::new().is_none());
    }
}
