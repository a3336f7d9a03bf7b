//! How a snapshot is taken of a VM that runs, and begins others.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::builder::VmBuilder;
use super::exit::Status;
use super::snapshot::{Snapshot, SnapshotParts};
use super::vm::{PAUSE_LIMIT, Vm};
use crate::config::VsockConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{Frozen, Survey};
use crate::sys::{catch_panic, check_may_wait, lock, random_bytes, without_waiting};

impl Vm {
    /// Takes a snapshot of a VM that runs or is paused. The VM stands still meanwhile; if it ran, it goes on afterwards. Blocks until requests in
    /// flight are done, at most for ten seconds, and then for as long as the RAM takes: some milliseconds for each GiB on a
    /// [memfd](crate::MemoryBacking::Memfd), and as long as copying what is not zero takes otherwise.
    ///
    /// # Errors
    /// Those of [`pause`](Self::pause). [`ErrorKind::InvalidState`] if a device has failed or cannot be saved, as one of a user's may be,
    /// and then the message names it; [`ErrorKind::HostMemory`] if there is no room for it. The VM goes on.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.snapshot_with(|| Ok(()))
    }

    /// Does the same as [`snapshot`](Self::snapshot), and calls a function at that very moment, which copies the disks, for instance: everything
    /// of the VM's has been taken then, and it stands still until the function has returned. So what the function does adds to the time for
    /// which the guest stands still. It is called on the calling thread, once, and not at all if something else fails before.
    ///
    /// Like a [callback](crate::event#what-a-callback-may-do), it must not wait for VMs: to pause, resume or snapshot one is refused in it. Other
    /// threads may [stop](Self::stop) the VM meanwhile; the snapshot is whole then, too.
    ///
    /// What is to happen in a fork before its first instruction is done between [`VmBuilder::build`] and [`Vm::start`].
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().boot(vmcell::Boot::linux("vmlinuz")).build()?;
    /// let snapshot = vm.snapshot_with(|| std::fs::copy("root.img", "copy.img").map(drop))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`snapshot`](Self::snapshot), and [`ErrorKind::Host`] if the function fails, with its error as the source, or panics. There is no
    /// snapshot then, and the VM goes on.
    pub fn snapshot_with(&self, at_standstill: impl FnOnce() -> io::Result<()>) -> Result<Snapshot> {
        check_may_wait("take a snapshot of a VM")?;
        let _one_at_a_time = lock(&self.transition);
        self.check_snapshot("take a snapshot of")?;
        let was_paused = self.status() == Status::Paused;
        let identity = new_identity()?;
        let survey = self.saves.memory.survey();
        let begun = Instant::now();
        self.stand_still(PAUSE_LIMIT)?;
        let taken = self.take(identity, &survey);
        let called = if taken.is_ok() { call(at_standstill) } else { Ok(()) };
        if !was_paused {
            // Refused if it has ended meanwhile, and then there is nothing to go on with.
            let _ = self.go_on();
        }
        let standstill = if was_paused { Duration::ZERO } else { begun.elapsed() };
        let (parts, frozen) = taken?;
        frozen.finish();
        called?;
        let parts = SnapshotParts { standstill, ..parts };
        Ok(Snapshot { parts: Arc::new(parts) })
    }

    /// Refuses a VM that may not be copied, or that has nothing to copy.
    pub(super) fn check_snapshot(&self, call: &str) -> Result<()> {
        if self.saves.config.never_snapshot {
            let message = format!("no snapshot may be taken of {}: never_snapshot is set", self.the_vm());
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        self.expect_guest(call)?;
        #[cfg(feature = "secret")]
        self.check_holds_no_secrets(call)?;
        #[cfg(feature = "save")]
        self.check_has_ram(call)?;
        Ok(())
    }

    /// Takes a snapshot of a VM that stands still, and goes on doing so.
    #[cfg(feature = "save")]
    pub(super) fn snapshot_at_standstill(&self) -> Result<Snapshot> {
        let (parts, frozen) = self.take(new_identity()?, &self.saves.memory.survey())?;
        frozen.finish();
        Ok(Snapshot { parts: Arc::new(parts) })
    }

    /// While it stands still.
    fn take(&self, identity: [u8; 16], survey: &Survey) -> Result<(SnapshotParts, Frozen)> {
        let (devices, saves) = (&self.devices, &self.saves);
        let vcpus = self.seats.iter().map(|seat| seat.look(|vcpu| vcpu.state(saves.msrs)));
        let (vcpus, chips, ports) = (vcpus.collect::<Result<_>>()?, devices.chips_state()?, devices.ports_state());
        let devices = devices.save()?;
        // At last: all that may be refused was not.
        let frozen = saves.memory.freeze(survey, &saves.config.memory)?;
        let (config, memory, generation) = (saves.config.clone(), frozen.template().clone(), saves.generation);
        let (standstill, cpu) = (Duration::ZERO, saves.cpu.clone());
        let parts = SnapshotParts {
            identity,
            standstill,
            config,
            memory,
            generation,
            cpu,
            vcpus,
            chips,
            ports,
            devices,
            #[cfg(feature = "secret")]
            secrets: saves.secrets.places().to_vec(),
        };
        Ok((parts, frozen))
    }
}

fn new_identity() -> Result<[u8; 16]> {
    let mut identity = [0; 16];
    random_bytes(&mut identity)
        .map_err(|e| Error::new(ErrorKind::Host, "the host has no random bytes for a snapshot").with_source(e))?;
    Ok(identity)
}

/// Calls what a host program does while its VM stands still.
fn call(at_standstill: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let refused = |what: &str| {
        Error::new(ErrorKind::Host, format!("the snapshot was not taken, because the function for its moment {what}"))
    };
    match catch_panic(|| without_waiting(at_standstill)) {
        Ok(result) => result.map_err(|e| refused("failed").with_source(e)),
        Err(said) if said.is_empty() => Err(refused("panicked")),
        Err(said) => Err(refused(&format!("panicked: {said}"))),
    }
}

impl VmBuilder {
    /// Has the VM begin where another one was when a snapshot was taken, rather than boot a kernel. The number of vCPUs, their features, the size
    /// of the memory, the source of random bytes and the balloon are the source's, whatever was said before. A vsock is the source's without its Unix
    /// socket, unless the builder has one already; its connections are reset, and the guest reads its CID anew.
    ///
    /// Disks, network cards, other devices and the console are given anew: as many of the same kinds, in the same order, and disks with the
    /// size, the block size, the access and the content that the source's had. Otherwise, but for the content, [`build`](Self::build) says what
    /// differs. The pages and the backing of the
    /// memory are those of the snapshot, and none of it is taken in advance.
    ///
    /// Limits on disks, network cards and the console's output are given anew, too, and so are their groups; a group may be that of the
    /// source. The limit on random bytes is the source's.
    ///
    /// A guest with ACPI is told that it is a fork, [its clocks](Self::fork_clock) are put right, and the link of its network cards goes down and up.
    /// `docs/snapshot.md` has what it can rely on.
    #[must_use]
    pub fn fork_of(mut self, snapshot: &Snapshot) -> Self {
        let source = snapshot.config();
        self.config.vcpus = source.vcpus;
        self.config.cpu = source.cpu.clone();
        self.config.memory.mib = source.memory.mib;
        self.config.boot = source.boot.clone();
        self.config.rng = source.rng.clone();
        self.config.balloon = source.balloon.clone();
        if self.config.vsock.is_none() {
            self.config.vsock = source.vsock.clone().map(|vsock| VsockConfig { path: None, ..vsock });
        }
        self.snapshot = Some(snapshot.clone());
        self
    }
}
