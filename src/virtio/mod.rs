//! What all virtio devices have in common: queues and their chains, the device trait, and the transport.
//!
//! Nothing here knows what a device does. A device implements [`VirtioDevice`]; [`MmioTransport`] shows it to the guest
//! and gives it to an [`IoThread`](crate::IoThread), which owns it from then on. Section numbers are those of the virtio
//! specification, version 1.2.
//!
//! The guest is hostile: everything read from its memory is copied once and checked before it is used, and no step here
//! waits for the guest.

mod config_space;
mod device;
mod failure;
mod gate;
mod guarded;
mod interrupt;
mod metrics;
mod owner;
mod queue;
pub mod spec;
mod transport;

pub use device::{Activation, DeviceInfo, DeviceState, Requirement, VirtioDevice};
pub use failure::{Failure, FailureCause};
pub(crate) use guarded::Guarded;
pub use interrupt::Interrupt;
pub use metrics::TransportMetrics;
pub use queue::{Chain, Queue, QueueConfig, QueueState, Queues, Segment};
pub use transport::{MmioTransport, QueueRegisters, TransportState};

#[cfg(test)]
mod rig_test;

#[cfg(all(test, shuttle))]
#[path = "model_test.rs"]
mod models;
