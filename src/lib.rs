//! VM isolation primitives for Linux/KVM.
#![allow(dead_code)]

mod arch;
mod block;
pub mod bus;
mod config;
mod console;
mod error;
pub mod kvm;
mod legacy;
mod memory;
mod net;
mod sys;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod virtio;
mod vm;

pub use block::Disk;
pub use config::{Boot, BootProtocol, Discovery, Engine, MemoryBacking, MemoryConfig, PageSize};
pub use console::Console;
pub use error::{Error, ErrorKind, Result};
pub use memory::{GuestAddress, GuestMemory, MemoryRegion};
pub use net::Nic;
pub use sys::EventFd;
pub use virtio::IoThread;
pub use vm::{Exit, ResetCause, Status, Vm, VmBuilder};
