//! What a user fills in, as plain data, and its validation. No descriptor is opened and nothing is read here.

mod boot;
mod cpu;
mod memory;

pub use boot::{Boot, BootProtocol, Discovery};
pub(crate) use cpu::check_vcpus;
pub use memory::{MemoryBacking, MemoryConfig, PageSize};
