//! The API's resources as data, one file each, and which path means which. Nothing here knows a machine.

mod actions;
mod balloon;
mod boot_source;
mod call;
mod drive;
mod entropy;
mod instance;
mod limiter;
mod logger;
mod machine_config;
mod mmds;
mod network;
mod route;
mod serial;
mod snapshot;
mod vm;
mod vm_config;
mod vsock;

pub use actions::{Action, ActionInfo};
pub use balloon::{Balloon, BalloonStatistics, BalloonStatisticsUpdate, BalloonUpdate};
pub use boot_source::BootSource;
pub use call::{Call, When};
pub use drive::{CacheType, Drive, DriveUpdate, IoEngine};
pub use entropy::Entropy;
pub use instance::{InstanceInfo, InstanceState, VERSION};
pub use limiter::{Bucket, RateLimiter};
pub use logger::{LoggerUpdate, MetricsTarget};
pub use machine_config::{CpuTemplate, HugePages, MachineConfig, MachineConfigUpdate};
pub use mmds::{MmdsConfig, MmdsVersion};
pub use network::{Mac, NetworkInterface, NetworkInterfaceUpdate};
pub use route::route;
pub use serial::Serial;
pub use snapshot::{
    DriveOverride, MemoryBackend, MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
    VsockOverride,
};
pub use vm::{VmState, VmUpdate};
pub use vm_config::VmConfig;
pub use vsock::Vsock;
