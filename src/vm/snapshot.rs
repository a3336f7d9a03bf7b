//! A VM at one moment, as data.

use std::sync::Arc;
use std::time::Duration;

use crate::board::PortsState;
use crate::config::VmConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{ChipsState, CpuidEntry, VcpuState};
use crate::memory::{GuestAddress, Template};
use crate::virtio::TransportState;

/// A VM at one moment: its RAM, its vCPUs, its chips and its devices. Any number of VMs begin with it by
/// [`VmBuilder::fork_of`](crate::VmBuilder::fork_of), and each goes its own way. A clone is a handle to the same snapshot.
///
/// The content of disks is not part of it. Copy them while the VM is [paused](crate::Vm::pause), and give each fork a copy of its own.
///
/// If the VM's RAM lies on a [memfd](crate::MemoryBacking::Memfd), nothing is copied: the snapshot keeps the pages, and the VM and its
/// forks share them, until one of them changes a page and gets a copy of it. The VM's next snapshot, and a fork's, copies the pages that
/// were changed since. Anonymous RAM, and RAM on pages of 2 MiB, is copied each time, but for its zeroes.
///
/// # What to mind
/// A fork has all that its source had in memory, keys and tokens too. A guest with ACPI and a driver for VMGenID (Linux 5.18) is told that
/// it is a fork, and reseeds its random number generator; until it has, two forks draw the same numbers.
/// [`VmBuilder::fork_clock`](crate::VmBuilder::fork_clock) says what its clocks show. `docs/snapshot.md` has what a fork can rely on.
///
/// ```no_run
/// use vmcell::{Boot, Console, Vm};
///
/// let source = Vm::builder().boot(Boot::linux("vmlinuz")).build()?;
/// source.start()?;
/// let snapshot = source.snapshot()?; // it goes on
/// let fork = Vm::builder().fork_of(&snapshot).console(Console::stdio()).build()?;
/// fork.start()?; // where the source was
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pub(super) parts: Arc<SnapshotParts>,
}

pub(super) struct SnapshotParts {
    /// Tells it from every other snapshot.
    #[cfg_attr(not(feature = "save"), expect(dead_code, reason = "files have it"))]
    pub(super) identity: [u8; 16],
    pub(super) standstill: Duration,
    pub(super) config: VmConfig,
    pub(super) memory: Template,
    /// Where the guest finds the identifier of its generation (VMGenID), if it was told of one.
    pub(super) generation: Option<GuestAddress>,
    /// What the guest was told of its CPUs.
    pub(super) cpu: Vec<CpuidEntry>,
    pub(super) vcpus: Vec<VcpuState>,
    pub(super) chips: ChipsState,
    pub(super) ports: PortsState,
    /// What messages call each device, and its state.
    pub(super) devices: Vec<(String, TransportState)>,
    /// Where the source's secrets were, which are none any more.
    #[cfg(feature = "secret")]
    pub(super) secrets: Vec<crate::secret::Place>,
}

impl Snapshot {
    /// Returns the description of the VM that it was taken from, without what its builder was given beside that.
    pub fn config(&self) -> &VmConfig {
        &self.parts.config
    }

    /// Returns for how long its VM stood still for it, from the moment that it was told to; zero if it was paused already, or if the snapshot was
    /// loaded.
    pub fn standstill(&self) -> Duration {
        self.parts.standstill
    }

    /// Returns what the source's devices are called, in the order in which a fork must have them, too.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.parts.devices.iter().map(|(label, _)| label.as_str())
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Snapshot {
    /// Makes it one that was taken so much earlier. Needs the only handle to it; says whether this is that.
    pub fn age(&mut self, by: std::time::Duration) -> bool {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let parts = Arc::get_mut(&mut self.parts);
        parts.map(|parts| parts.chips.wall_clock_ns = parts.chips.wall_clock_ns.saturating_sub(by)).is_some()
    }

    /// Returns the state of the chips, and that of each vCPU.
    pub fn states(&self) -> (&ChipsState, &[VcpuState]) {
        (&self.parts.chips, &self.parts.vcpus)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let devices: Vec<_> = self.devices().collect();
        f.debug_struct("Snapshot")
            .field("vcpus", &self.parts.vcpus.len())
            .field("devices", &devices)
            .finish_non_exhaustive()
    }
}

impl SnapshotParts {
    /// Refuses a fork with more or fewer devices. Whether they are of the same kinds, their states tell.
    pub(super) fn check_devices(&self, labels: &[String]) -> Result<()> {
        if labels.len() == self.devices.len() {
            return Ok(());
        }
        let list = |labels: &mut dyn Iterator<Item = &String>| {
            let labels: Vec<_> = labels.map(String::as_str).collect();
            if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
        };
        let (has, needs) = (list(&mut labels.iter()), list(&mut self.devices.iter().map(|(label, _)| label)));
        let message = format!("the fork of a VM was given the devices {has}; allowed are those of its source: {needs}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}
