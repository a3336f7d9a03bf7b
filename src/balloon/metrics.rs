//! How large the balloon is, as metrics.

use super::handle::BalloonHandle;
use super::statistics::BalloonStatistics;

/// How large a VM's balloon is, and what the guest said of its memory. These are no counters: they go up and down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalloonMetrics {
    /// How many bytes the guest was asked to give back.
    pub target_bytes: u64,
    /// How many bytes the guest's driver says that it has given back.
    pub actual_bytes: u64,
    /// What the guest said last of its memory; `None` if it has said nothing since its driver began. It speaks if it is
    /// [asked](BalloonHandle::set_statistics_interval).
    pub statistics: Option<BalloonStatistics>,
}

impl BalloonHandle {
    /// Returns how large the balloon is. Never blocks.
    pub(crate) fn metrics(&self) -> BalloonMetrics {
        BalloonMetrics { target_bytes: self.target(), actual_bytes: self.actual(), statistics: self.statistics() }
    }
}
