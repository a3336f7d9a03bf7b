//! What every virtio device counts, whatever it is.

use crate::meter::Tally;

/// Counted up by the thread that owns the device; read by any.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct DeviceCounters {
    pub(super) chains: Tally,
    pub(super) refused_chains: Tally,
    pub(super) doorbells: Tally,
}

/// What a device and its driver have done since the device was made. See [`meter`](crate::meter) for what counters promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportMetrics {
    /// Chains that the driver gave to the device.
    pub chains: u64,
    /// Chains of these that broke the rules for descriptors, so that the device saw nothing of them.
    pub refused_chains: u64,
    /// Doorbells that reached the device's thread. Several that were rung before it looked count as one; a driver that is being served
    /// does not ring.
    pub doorbells: u64,
    /// Interrupts that the device raised. KVM may make one of several, if the driver is slow to take them.
    pub interrupts: u64,
    /// How often the device has failed; see [`Vm::device_failures`](crate::Vm::device_failures).
    pub failures: u64,
    /// Whether the driver is told now that the device needs a reset.
    pub needs_reset: bool,
}
