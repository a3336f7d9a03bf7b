//! How the guest finds and programs a device: the part that all transports share, and the MMIO register map.

mod common;
mod interrupt;
mod mmio;
mod registers;
mod state;
mod status;

pub use mmio::MmioTransport;
pub use state::{QueueRegisters, TransportState};
