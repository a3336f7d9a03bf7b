//! The machine, as a kernel is told of it by ACPI tables or the command line.

use super::layout::MmioSlot;

/// The machine that the kernel is told of.
pub(crate) struct Platform<'a> {
    /// How many vCPUs it has, with the LAPIC identifiers 0 and up.
    pub(crate) vcpus: u32,
    /// Where its virtio-mmio devices are.
    pub(crate) devices: &'a [MmioSlot],
}
