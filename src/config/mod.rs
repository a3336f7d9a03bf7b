//! Plain data that a user fills in, and its validation. Nothing is opened or read here.

mod affinity;
mod balloon;
mod boot;
mod cgroup;
mod console;
mod cpu;
mod disk;
mod fork_clock;
#[cfg(feature = "serde")]
pub(crate) mod hex;
#[cfg(feature = "serde")]
mod json;
mod limits;
mod memory;
mod name;
mod nic;
mod rate;
mod rng;
mod seccomp;
mod text;
mod vm;
mod vsock;
#[cfg(feature = "serde")]
mod written;

pub use affinity::Affinity;
pub(crate) use affinity::cpu_list;
pub use balloon::BalloonConfig;
pub(crate) use balloon::check_statistics_interval;
pub use boot::{Boot, BootProtocol, Discovery};
pub use cgroup::{CgroupConfig, CpuShare};
pub(crate) use console::check_stdio;
pub use console::{ConsoleConfig, ConsoleFile};
#[cfg(test)]
pub(crate) use cpu::CPU_FEATURES_ON_AVX;
pub(crate) use cpu::{CPU_FEATURES, vcpus};
pub use cpu::{CpuConfig, CpuLevel};
pub use disk::{DiskConfig, Engine};
pub use fork_clock::ForkClock;
pub use limits::Limits;
pub(crate) use memory::MAX_NUMA_NODE;
pub use memory::{MemoryBacking, MemoryConfig, PageSize};
pub use nic::NicConfig;
pub(crate) use nic::{check_queue_count, check_tap_name};
pub use rate::RateLimit;
pub use rng::RngConfig;
pub use seccomp::Seccomp;
pub use vm::VmConfig;
pub use vsock::VsockConfig;
