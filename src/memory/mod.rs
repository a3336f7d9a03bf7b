//! The guest's RAM: how it is mapped, and the only ways to access it.
//!
//! The guest may change any byte at any time, so no reference to its memory ever leaves this room: callers copy bytes in
//! and out by guest physical address, or hand whole ranges to the kernel for I/O. Where the RAM lies in the guest's
//! address space is not decided here but by `arch`.
#![allow(unsafe_code, reason = "maps guest memory and hands ranges of it to the kernel for scatter-gather I/O")]

mod address;
mod aligned;
mod area;
mod buffer;
mod file_ring;
mod flight;
mod fork;
mod freeze;
mod give_back;
mod ground;
mod guest;
mod holes;
mod host;
mod lease;
mod mapping;
mod own_pages;
mod placement;
#[cfg(feature = "save")]
mod places;
mod preallocate;
mod ranges;
mod retry;
mod ring_entry;
mod ring_port;
#[cfg(test)]
#[path = "smaps_test.rs"]
mod smaps;
mod template;
mod transfer;
mod usage;
#[cfg(feature = "save")]
mod used;

pub use address::GuestAddress;
pub(crate) use area::GuestArea;
pub use buffer::Buffer;
pub(crate) use file_ring::{FileRing, leaked_transfers};
pub(crate) use flight::{Transfer, Transferred};
pub(crate) use freeze::{Frozen, Survey};
pub(crate) use give_back::check_gives_back;
pub use guest::{GuestMemory, MemoryRegion};
#[cfg(feature = "save")]
pub(crate) use holes::is_zero;
pub(crate) use host::BufferPool;
pub use host::HostBuffer;
pub(crate) use lease::{Lease, Lessor};
#[cfg(feature = "save")]
pub(crate) use places::{Place, ram_file, seal_ram_file};
pub use ranges::GuestRanges;
pub(crate) use ranges::RangeList;
pub(crate) use ring_port::Port;
pub(crate) use template::Template;
pub use usage::MemoryUse;

#[cfg(test)]
#[path = "properties_test.rs"]
mod properties;
