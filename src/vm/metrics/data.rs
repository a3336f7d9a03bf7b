//! The snapshot as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::balloon::BalloonMetrics;
use crate::block::DiskMetrics;
use crate::event::IoThreadMetrics;
use crate::memory::MemoryUse;
use crate::net::NicMetrics;
use crate::virtio::TransportMetrics;

/// What a VM has done since it was built; see [`Vm::metrics`](crate::Vm::metrics).
///
/// Counters begin at 0 and only go up, also when a guest resets its devices; the sizes of a balloon and of memory are none. They have 64 bits. Each of them is right by itself; two of
/// them may be read at moments that differ a little. See [`meter`](crate::meter). With the feature `serde` it can be serialized, as the object that
/// [`to_json`](Self::to_json) writes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// The VM's name; empty if it has none.
    pub vm: String,
    /// By index.
    pub vcpus: Vec<VcpuMetrics>,
    /// The I/O threads that serve the VM, each once.
    pub io_threads: Vec<IoThreadMetrics>,
    /// In the order in which the guest finds them.
    pub devices: Vec<DeviceMetrics>,
    /// The serial console.
    pub console: ConsoleMetrics,
    /// What the host keeps of the RAM, which goes up and down. [`Vm::metrics_with_memory`](crate::Vm::metrics_with_memory) asks for it.
    pub memory: Option<MemoryUse>,
}

/// What a vCPU has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VcpuMetrics {
    /// Why it left the guest for this library. What KVM handles by itself is not counted.
    pub exits: ExitCounts,
    /// How long its thread has run on a CPU, in the guest and in the host. A vCPU that halts does not.
    pub cpu_time: Duration,
}

/// How often a vCPU left the guest, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitCounts {
    /// The guest read from a port.
    pub pio_read: u64,
    /// The guest wrote to a port.
    pub pio_write: u64,
    /// The guest read where it has no RAM.
    pub mmio_read: u64,
    /// The guest wrote where it has no RAM. A doorbell of a device is not among them: see
    /// [`doorbells`](TransportMetrics::doorbells).
    pub mmio_write: u64,
    /// The vCPU was made to leave the guest, by a pause for instance.
    pub interrupted: u64,
    /// The guest ended itself, by a triple fault or by a request to KVM.
    pub shutdown: u64,
    /// Anything else. Each of these ends the VM.
    pub other: u64,
}

/// What a device has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMetrics {
    /// `disk0`, `disk1` and so on for disks, `nic0` for network interfaces, `rng0` for the source of random bytes, `balloon0` for the balloon, `vsock0` for the vsock, `device0` for devices of your own, each counted by itself.
    pub name: String,
    /// What all devices count.
    pub transport: TransportMetrics,
    /// What devices of this kind count.
    pub kind: DeviceKindMetrics,
    /// What its backend, or a device of your own, [counts](crate::meter::Meter), by name.
    pub counters: BTreeMap<String, u64>,
}

/// What devices of one kind count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKindMetrics {
    /// A disk.
    Disk(DiskMetrics),
    /// A network interface.
    Nic(NicMetrics),
    /// A balloon, which has [counters](DeviceMetrics::counters) as well.
    Balloon(BalloonMetrics),
    /// A source of random bytes or a vsock, which keep their [counters](DeviceMetrics::counters) by name, or a device of your own.
    #[default]
    Other,
}

/// What passed through the serial console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsoleMetrics {
    /// Bytes that the guest wrote, whether or not a reader got them.
    pub output_bytes: u64,
    /// Bytes of these that a sink did not get because it was too slow, the sum of all sinks; see
    /// [`Vm::console_status`](crate::Vm::console_status).
    pub dropped_bytes: u64,
    /// Bytes of these that a sink failed to take, the sum of all sinks.
    pub lost_bytes: u64,
    /// Bytes that were typed into it.
    pub input_bytes: u64,
    /// How often output waited for the [limit](crate::VmBuilder::console_rate).
    pub limited: u64,
}

impl ExitCounts {
    /// Each kind by its name, and how often it was.
    pub fn by_kind(&self) -> [(&'static str, u64); 7] {
        [
            ("pio_read", self.pio_read),
            ("pio_write", self.pio_write),
            ("mmio_read", self.mmio_read),
            ("mmio_write", self.mmio_write),
            ("interrupted", self.interrupted),
            ("shutdown", self.shutdown),
            ("other", self.other),
        ]
    }
}
