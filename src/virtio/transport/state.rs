//! A device behind its transport, at rest, as plain data.

use crate::memory::GuestAddress;
use crate::virtio::device::DeviceState;
use crate::virtio::queue::QueueState;

/// All that has to be known to build a device and its transport anew, in memory with the same content, and go on with it.
///
/// Only the transport makes and reads it; the fields are public so that it can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportState {
    /// Which form this is: [`VERSION`](Self::VERSION).
    pub version: u32,
    /// The device's type.
    pub device_id: u32,
    /// The device status (2.1).
    pub status: u32,
    /// The features that the driver has accepted.
    pub features: u64,
    /// Which half of the offered features the driver reads.
    pub device_features_sel: u32,
    /// Which half of the accepted features the driver writes.
    pub driver_features_sel: u32,
    /// The queue that the driver has selected.
    pub queue_sel: u32,
    /// Interrupts that the driver has not acknowledged.
    pub interrupt_status: u32,
    /// The queues, by index.
    pub queues: Vec<QueueRegisters>,
    /// The device's own state; `None` before it was activated.
    pub device: Option<DeviceState>,
}

/// What the driver has set of a queue, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueRegisters {
    /// Number of descriptors.
    pub size: u16,
    /// The descriptor table.
    pub desc_table: GuestAddress,
    /// The available ring.
    pub avail_ring: GuestAddress,
    /// The used ring.
    pub used_ring: GuestAddress,
    /// Whether the driver uses it.
    pub ready: bool,
    /// How far it has come.
    pub progress: QueueState,
}

impl TransportState {
    /// The form that this version of the crate writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}
