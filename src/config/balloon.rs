//! A balloon as the guest sees it.

use std::time::Duration;

use super::memory::{MemoryConfig, PageSize};
use crate::error::{Error, ErrorKind, Result};

/// The longest time between two statistics that come by themselves: a day.
const MOST_SECONDS: u32 = 24 * 60 * 60;

/// A device by which the guest gives memory back to the host, as plain data (virtio 1.2, section 5.5).
///
/// The guest gives back what the [target](crate::BalloonHandle::set_target) asks of it, and by itself what it does not use
/// ([`reporting`](Self::reporting())).
///
/// ```
/// use std::time::Duration;
/// use vmcell::BalloonConfig;
///
/// let balloon = BalloonConfig::new().mib(64).statistics_every(Duration::from_secs(10));
/// assert!(balloon.reporting && balloon.deflate_on_oom);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields, expecting = "an object such as {} or { \"mib\": 64 }")
)]
#[non_exhaustive]
pub struct BalloonConfig {
    /// How many MiB the guest is asked to give back from the beginning, at most its RAM. The default is 0.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub mib: u64,
    /// Whether the guest may take memory back by itself when it runs out; see [`deflate_on_oom`](Self::deflate_on_oom()). The default is
    /// that it may.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_true"))]
    pub deflate_on_oom: bool,
    /// Whether the guest reports free pages; see [`reporting`](Self::reporting()). The default is that it does.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_true"))]
    pub reporting: bool,
    /// After how many seconds the guest is asked for statistics again, at most 86400, or 0 to ask only on demand, which is the default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "super::written::is_default"))]
    pub statistics_s: u32,
}

impl Default for BalloonConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl BalloonConfig {
    /// One that asks for nothing yet, takes free pages that the guest reports, and may be deflated by a guest that runs out of memory.
    pub fn new() -> Self {
        Self { mib: 0, deflate_on_oom: true, reporting: true, statistics_s: 0 }
    }

    /// How many MiB the guest is asked to give back from the beginning, at most its RAM.
    #[must_use]
    pub fn mib(mut self, mib: u64) -> Self {
        self.mib = mib;
        self
    }

    /// Whether the guest may take memory back by itself when it runs out, rather than end one of its processes. The host program sees it
    /// by [`actual`](crate::BalloonHandle::actual), which falls below the target then. The default is that it may.
    ///
    /// Linux shows the balloon differently with this: the balloon's pages count as used (`MemFree`), and without it they are no longer part of
    /// the whole (`MemTotal`).
    #[must_use]
    pub fn deflate_on_oom(mut self, may: bool) -> Self {
        self.deflate_on_oom = may;
        self
    }

    /// Whether the guest reports pages that it has freed (free page reporting), which go back to the host at once, and are taken again
    /// when the guest uses them. Linux does so about 2 seconds later, in blocks of 2 MiB or more. The default is that it does.
    ///
    /// A guest that relies on the content of free pages, such as Linux with `init_on_free=1`, does not report any.
    #[must_use]
    pub fn reporting(mut self, reports: bool) -> Self {
        self.reporting = reports;
        self
    }

    /// How often the guest is asked for statistics by itself. What is below a second is left out, and 0 means to ask only
    /// [on demand](crate::BalloonHandle::statistics_within), which is the default.
    #[must_use]
    pub fn statistics_every(mut self, interval: Duration) -> Self {
        self.statistics_s = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX);
        self
    }

    pub(crate) fn validate(&self, memory: &MemoryConfig) -> Result<()> {
        if self.mib > memory.mib {
            let message = format!(
                "a target of {} MiB was asked for, allowed are 0 to {} MiB, the guest's RAM",
                self.mib, memory.mib
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if memory.pages == PageSize::Huge2Mib {
            let message = "memory on pages of 2 MiB from the host's pool is not given back: it stays reserved for the VM, or could be used up \
                           by others, and then an access would end the process; allowed are other pages, transparent huge ones among them";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if memory.locked {
            let message = "memory that is locked is not given back; allowed is either of the two";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        check_statistics_interval(self.statistics_s.into())
    }
}

/// Refuses a time between statistics that is longer than a day.
pub(crate) fn check_statistics_interval(seconds: u64) -> Result<()> {
    if seconds <= MOST_SECONDS.into() {
        return Ok(());
    }
    let message = format!(
        "statistics every {seconds} s were asked for, allowed are 1 to {MOST_SECONDS}, and 0 for none by themselves"
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(balloon: &BalloonConfig, memory: MemoryConfig) -> String {
        let error = balloon.validate(&memory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn no_more_than_the_ram_is_asked_for() {
        BalloonConfig::new().mib(128).validate(&MemoryConfig::mib(128)).unwrap();
        let expected = "a target of 129 MiB was asked for, allowed are 0 to 128 MiB, the guest's RAM";
        assert_eq!(refusal(&BalloonConfig::new().mib(129), MemoryConfig::mib(128)), expected);
    }

    #[test]
    fn memory_that_cannot_be_given_back_is_refused() {
        let balloon = BalloonConfig::new();
        assert!(refusal(&balloon, MemoryConfig::mib(128).pages(PageSize::Huge2Mib)).contains("pages of 2 MiB"));
        assert!(refusal(&balloon, MemoryConfig::mib(128).locked(true)).contains("is locked"));
        balloon.validate(&MemoryConfig::mib(128).pages(PageSize::Transparent)).unwrap();
    }

    #[test]
    fn statistics_come_every_day_at_the_latest() {
        let every = |seconds| BalloonConfig::new().statistics_every(Duration::from_secs(seconds));
        every(86_400).validate(&MemoryConfig::mib(128)).unwrap();
        let expected = "statistics every 86401 s were asked for, allowed are 1 to 86400, and 0 for none by themselves";
        assert_eq!(refusal(&every(86_401), MemoryConfig::mib(128)), expected);
        assert_eq!(every(u64::MAX).statistics_s, u32::MAX);
    }
}
