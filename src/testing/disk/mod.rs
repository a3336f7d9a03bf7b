//! Disks for tests, and the suite for whatever carries out a disk's operations.

mod bench;
mod conformance;
mod data;
mod hazards;
mod memory;
mod promises;
mod simulated;
mod suite;

pub use conformance::DiskConformance;
pub use memory::memory_disk;
pub use simulated::{SimulatedDisk, SimulatedDiskHandle};
