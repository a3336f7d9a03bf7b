//! VM isolation primitives for Linux/KVM.
#![allow(dead_code)]

mod block;
pub mod bus;
mod config;
mod error;
mod memory;
mod net;
mod sys;
pub mod virtio;

pub use block::Disk;
pub use config::{Boot, BootProtocol, Discovery, Engine, MemoryBacking, MemoryConfig, PageSize};
pub use error::{Error, ErrorKind, Result};
pub use memory::{GuestAddress, GuestMemory, MemoryRegion};
pub use net::Nic;
pub use sys::EventFd;
pub use virtio::IoThread;
