//! Plain data that a user fills in, and its validation. Nothing is opened or read here.

mod affinity;
mod boot;
mod cpu;
mod disk;
mod memory;
mod name;
mod nic;

pub use affinity::Affinity;
pub use boot::{Boot, BootProtocol, Discovery};
pub(crate) use cpu::check_vcpus;
pub(crate) use disk::DiskConfig;
pub use disk::Engine;
pub use memory::{MemoryBacking, MemoryConfig, PageSize};
pub(crate) use name::check_name;
pub(crate) use nic::{NicConfig, check_tap_name};
