//! A whole VM: its builder, what a host program keeps of it, the threads of its vCPUs, and the order in which it starts and
//! ends.

mod build;
mod builder;
mod cgroup;
#[cfg(feature = "secret")]
mod delivery;
mod devices;
mod discard;
mod exit;
mod failures;
mod fork;
mod json;
mod lifecycle;
mod metrics;
#[cfg(feature = "save")]
mod saved;
mod seat;
#[cfg(feature = "secret")]
mod secrets;
mod snapshot;
mod spared;
#[cfg(feature = "save")]
mod suspend;
mod threads;
mod vcpu;
mod view;
#[allow(clippy::module_inception, reason = "named after the type that it holds, as in `kvm`")]
mod vm;
#[cfg(feature = "save")]
mod wanted;
#[cfg(feature = "save")]
mod working_set;

pub use build::OpenVm;
pub use builder::VmBuilder;
pub use exit::{Exit, Status};
pub use failures::DeviceFailure;
#[cfg(any(test, feature = "capi"))]
pub(crate) use failures::failures_json;
pub use metrics::{ConsoleMetrics, DeviceKindMetrics, DeviceMetrics, ExitCounts, Metrics, VcpuMetrics, openmetrics};
#[cfg(feature = "save")]
pub use saved::{LoadMemory, SaveOptions};
pub use snapshot::Snapshot;
pub use threads::{ThreadRole, VmThread};
pub use vm::Vm;
#[cfg(feature = "save")]
pub use working_set::WorkingSet;

#[cfg(all(test, shuttle))]
#[path = "model_test.rs"]
mod models;
