//! The machine, as ACPI tables, the MP table or the command line describe it to a kernel.

use super::layout::MmioSlot;

/// The machine that is described to the kernel.
#[derive(Clone, Copy, Default)]
pub(crate) struct Platform<'a> {
    /// The number of its vCPUs; their LAPIC identifiers are 0 and up.
    pub(crate) vcpus: u32,
    /// What all of them are.
    pub(crate) cpu: CpuIdentity,
    /// The places of its virtio-mmio devices.
    pub(crate) devices: &'a [MmioSlot],
}

/// What CPUID leaf 1 tells of a CPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuIdentity {
    /// Family, model and stepping: EAX.
    pub(crate) signature: u32,
    /// EDX.
    pub(crate) features: u32,
}
