//! VM isolation primitives for Linux/KVM.
#![allow(dead_code)]

mod arch;
pub mod bus;
mod config;
mod console;
mod error;
pub mod kvm;
mod legacy;
mod memory;
mod sys;
pub mod virtio;

pub use config::{Boot, BootProtocol, Discovery, MemoryBacking, MemoryConfig, PageSize};
pub use console::Console;
pub use error::{Error, ErrorKind, Result};
pub use memory::{GuestAddress, GuestMemory, MemoryRegion};
pub use sys::EventFd;
pub use virtio::IoThread;
