//! The machine, as ACPI tables or the command line describe it to a kernel.

use super::layout::MmioSlot;

/// The machine that is described to the kernel.
pub(crate) struct Platform<'a> {
    /// The number of its vCPUs; their LAPIC identifiers are 0 and up.
    pub(crate) vcpus: u32,
    /// The places of its virtio-mmio devices.
    pub(crate) devices: &'a [MmioSlot],
}
