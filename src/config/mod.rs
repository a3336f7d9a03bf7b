//! Plain data that a user fills in, and its validation. Nothing is opened or read here.

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
