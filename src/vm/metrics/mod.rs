//! What a VM has done so far, as plain data, as JSON and as OpenMetrics text.

mod counters;
mod data;
mod families;
mod json;
mod openmetrics;

pub(super) use counters::VcpuCounters;
pub use data::{ConsoleMetrics, DeviceKindMetrics, DeviceMetrics, ExitCounts, Metrics, VcpuMetrics};
pub use openmetrics::openmetrics;
