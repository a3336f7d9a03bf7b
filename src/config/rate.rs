//! How much a device may do.

use crate::error::{Error, ErrorKind, Result};

/// The most of a limit: more than any device does.
const MOST: u64 = 1 << 40;

/// How much a device may do, as plain data: so much at once, and so much a second from then on.
///
/// In any window of time, no more is done than `burst` and what `per_second` makes of the window's length.
///
/// ```
/// use vmcell::RateLimit;
///
/// let limit = RateLimit::per_second(1024).burst(4096);
/// assert_eq!((limit.per_second, limit.burst), (1024, 4096));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(from = "Written"))]
#[non_exhaustive]
pub struct RateLimit {
    /// How much a second, 1 to 2⁴⁰.
    pub per_second: u64,
    /// How much at once, after a time in which nothing was done, 1 to 2⁴⁰. A description that does not say so means `per_second`.
    pub burst: u64,
}

/// What stands in a description.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as { \"per_second\": 1024, \"burst\": 4096 }")]
struct Written {
    per_second: u64,
    #[serde(default)]
    burst: Option<u64>,
}

#[cfg(feature = "serde")]
impl From<Written> for RateLimit {
    fn from(Written { per_second, burst }: Written) -> Self {
        Self { per_second, burst: burst.unwrap_or(per_second) }
    }
}

impl RateLimit {
    /// So much a second, and as much at once as in a second.
    pub fn per_second(per_second: u64) -> Self {
        Self { per_second, burst: per_second }
    }

    /// Sets how much may be done at once.
    #[must_use]
    pub fn burst(mut self, burst: u64) -> Self {
        self.burst = burst;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let Self { per_second, burst } = *self;
        if (1..=MOST).contains(&per_second) && (1..=MOST).contains(&burst) {
            return Ok(());
        }
        let message =
            format!("a limit of {per_second} a second and {burst} at once was asked for, allowed are 1 to {MOST}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_or_of_more_than_there_is_is_refused() {
        for (per_second, burst) in [(0, 1), (1, 0), (MOST + 1, 1), (1, MOST + 1)] {
            let error = RateLimit { per_second, burst }.validate().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "a limit of {per_second} a second and {burst} at once was asked for, allowed are 1 to 1099511627776"
                )
            );
        }
        RateLimit { per_second: 1, burst: MOST }.validate().unwrap();
    }
}
