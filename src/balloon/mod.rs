//! virtio-balloon (5.5): memory that the guest gives back to the host, because it is asked to or because it does not use it.

mod device;
mod handle;
mod metrics;
mod pages;
mod state;
mod statistics;
mod work;

pub(crate) use device::Balloon;
pub use handle::BalloonHandle;
pub use metrics::BalloonMetrics;
pub use statistics::BalloonStatistics;

/// What a page of the balloon is, whatever pages the guest has (5.5.6).
const PAGE: u64 = 4096;

/// Inflate, deflate, statistics, free page hints, and reports (5.5.2).
const QUEUES: usize = 5;
