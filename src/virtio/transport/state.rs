//! The state of a paused device and its transport, as plain data.

use crate::memory::GuestAddress;
use crate::virtio::device::DeviceState;
use crate::virtio::queue::QueueState;

/// Everything that has to be known to build a device and its transport anew, with memory of the same content, and go on with it.
///
/// Only the transport makes it and reads it. Its fields are public so that it can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct TransportState {
    /// The version of this format, [`VERSION`](Self::VERSION).
    pub version: u32,
    /// The type of the device.
    pub device_id: u32,
    /// The device status (2.1).
    pub status: u32,
    /// The features that the driver has accepted.
    pub features: u64,
    /// The half of the offered features that the driver has selected for reading.
    pub device_features_sel: u32,
    /// The half of the accepted features that the driver has selected for writing.
    pub driver_features_sel: u32,
    /// The queue that the driver has selected.
    pub queue_sel: u32,
    /// The reasons for interrupts that the driver has not acknowledged, as in the interrupt status register.
    pub interrupt_status: u32,
    /// The queues, by index.
    pub queues: Vec<QueueRegisters>,
    /// The device's own state; `None` if it was not active.
    pub device: Option<DeviceState>,
}

/// What the driver has set for a queue, and how far the queue has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct QueueRegisters {
    /// The number of descriptors.
    pub size: u16,
    /// The address of the descriptor table.
    pub desc_table: GuestAddress,
    /// The address of the available ring.
    pub avail_ring: GuestAddress,
    /// The address of the used ring.
    pub used_ring: GuestAddress,
    /// Whether the driver has made the queue ready.
    pub ready: bool,
    /// How far the queue has come.
    pub progress: QueueState,
}

impl TransportState {
    /// The version of the format that this version of the crate writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}
