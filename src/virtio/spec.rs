//! Numbers of the virtio specification, version 1.2, with the sections that they stand in.

/// Device status bits (2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest knows how to drive the device.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device has met an error that only a reset ends.
    pub const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub const FAILED: u32 = 128;
}

/// Device types (5).
pub mod device_id {
    /// Network card (5.1).
    pub const NET: u32 = 1;
    /// Block device (5.2).
    pub const BLOCK: u32 = 2;
    /// Source of random bytes (5.4).
    pub const RNG: u32 = 4;
    /// Memory balloon (5.5).
    pub const BALLOON: u32 = 5;
    /// Sockets between host and guest (5.10).
    pub const VSOCK: u32 = 19;
}

/// Feature bits that belong to the transport and the queues (6), as bit numbers.
pub mod feature {
    /// A descriptor may point to a table of descriptors (2.7.5.3).
    pub const RING_INDIRECT_DESC: u32 = 28;
    /// Notifications are suppressed by index (2.7.7, 2.7.8).
    pub const RING_EVENT_IDX: u32 = 29;
    /// The device is not a legacy one (6.1).
    pub const VERSION_1: u32 = 32;
}

/// Registers of the MMIO transport, as offsets in bytes (4.2.2).
pub mod mmio {
    /// Reads as [`MAGIC`].
    pub const MAGIC_VALUE: u64 = 0x000;
    /// Reads as [`VERSION_2`].
    pub const VERSION: u64 = 0x004;
    /// The device's type.
    pub const DEVICE_ID: u64 = 0x008;
    /// The maker of the device.
    pub const VENDOR_ID: u64 = 0x00c;
    /// The half of the offered features that the selector names.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// Selects a half of the offered features.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// The half of the accepted features that the selector names.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// Selects a half of the accepted features.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// Selects a queue.
    pub const QUEUE_SEL: u64 = 0x030;
    /// The largest size of the selected queue, in descriptors.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// The size of the selected queue, in descriptors.
    pub const QUEUE_NUM: u64 = 0x038;
    /// Whether the selected queue may be used.
    pub const QUEUE_READY: u64 = 0x044;
    /// The doorbell: takes a queue's index.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// The reasons for the interrupt.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// Acknowledges reasons for the interrupt.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Device status; writing zero resets.
    pub const STATUS: u64 = 0x070;
    /// Descriptor table, low half.
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    /// Descriptor table, high half.
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    /// Available ring, low half.
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    /// Available ring, high half.
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    /// Used ring, low half.
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    /// Used ring, high half.
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    /// Length of a shared memory region, low half; the first of four registers.
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    /// Base of a shared memory region, high half; the last of those four registers.
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    /// Changes when the config space does.
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    /// Where the device's config space begins.
    pub const CONFIG: u64 = 0x100;
    /// The size of one device's window in the guest's address space, in bytes.
    pub const WINDOW: u64 = 0x1000;

    /// "virt", little-endian.
    pub const MAGIC: u32 = 0x7472_6976;
    /// The only version that is not legacy.
    pub const VERSION_2: u32 = 2;

    /// Interrupt status: a queue has used buffers.
    pub const INTERRUPT_USED: u32 = 1;
    /// Interrupt status: the configuration changed.
    pub const INTERRUPT_CONFIG: u32 = 2;
}

/// The split queue (2.7).
pub mod ring {
    /// The largest queue size, in descriptors.
    pub const MAX_SIZE: u16 = 32768;
    /// Bytes of a descriptor.
    pub const DESCRIPTOR_LEN: u64 = 16;
    /// Bytes before the entries of either ring: flags and index.
    pub const HEADER_LEN: u64 = 4;
    /// Where the index stands in either ring.
    pub const INDEX_OFFSET: u64 = 2;
    /// Bytes of an entry of the available ring.
    pub const AVAIL_ENTRY_LEN: u64 = 2;
    /// Bytes of an entry of the used ring.
    pub const USED_ENTRY_LEN: u64 = 8;
    /// Bytes after the entries of either ring: the event index.
    pub const EVENT_LEN: u64 = 2;
    /// Alignment of the descriptor table.
    pub const DESCRIPTOR_ALIGN: u64 = 16;
    /// Alignment of the available ring.
    pub const AVAIL_ALIGN: u64 = 2;
    /// Alignment of the used ring.
    pub const USED_ALIGN: u64 = 4;
    /// Available ring flag: the driver wants no interrupt.
    pub const AVAIL_NO_INTERRUPT: u16 = 1;
    /// Used ring flag: the device wants no notification.
    pub const USED_NO_NOTIFY: u16 = 1;
    /// Descriptor flag: the chain goes on.
    pub const DESCRIPTOR_NEXT: u16 = 1;
    /// Descriptor flag: the device writes.
    pub const DESCRIPTOR_WRITE: u16 = 2;
    /// Descriptor flag: points to a table of descriptors.
    pub const DESCRIPTOR_INDIRECT: u16 = 4;
}
