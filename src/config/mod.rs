//! What a user fills in, as plain data, and its validation. No descriptor is opened and nothing is read here.

mod boot;
mod cpu;
mod disk;
mod memory;
mod nic;

pub use boot::{Boot, BootProtocol, Discovery};
pub(crate) use cpu::check_vcpus;
pub(crate) use disk::DiskConfig;
pub use disk::Engine;
pub use memory::{MemoryBacking, MemoryConfig, PageSize};
pub(crate) use nic::{NicConfig, check_tap_name};
