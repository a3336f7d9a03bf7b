//! A KVM VM: its memory slots, interrupt lines and doorbells.

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, VmFd};

use super::refused::refused;
use super::slots::MemorySlots;
use super::vcpu::Vcpu;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::EventFd;

/// What KVM must share with each vCPU: the structure that tells why it came back, and the page with the data of port I/O.
const LEAST_SHARED: usize = 2 * 4096;

/// A VM as KVM knows it. Its memory stays mapped for as long as it or one of its vCPUs lives.
///
/// Order matters to its speed: memory before the irqchip (a slot added after it costs milliseconds), the irqchip before
/// the vCPUs (KVM demands that).
pub struct KvmVm {
    fd: VmFd,
    /// The host's CPU can run a guest's time-stamp counter at another speed than its own.
    scales_tsc: bool,
    // Behind `fd`, so that it goes last.
    slots: Arc<MemorySlots>,
}

impl KvmVm {
    pub(super) fn new(fd: VmFd) -> Result<Self> {
        let shared = fd.run_size();
        if shared < LEAST_SHARED {
            let message = format!("KVM shares {shared} bytes with a vCPU, needed are {LEAST_SHARED}");
            return Err(Error::new(ErrorKind::KvmUnavailable, message));
        }
        let scales_tsc = fd.check_extension(kvm_ioctls::Cap::TscControl);
        Ok(Self { fd, scales_tsc, slots: Arc::default() })
    }

    /// Gives the guest all regions of `memory`, each in a slot of its own; also while vCPUs run.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if a region overlaps one that the guest has already, or lies past what the host's CPU can
    /// address. The guest gets none of the regions then.
    pub fn add_memory(&self, memory: &GuestMemory) -> Result<()> {
        self.slots.add(&self.fd, memory)
    }

    /// Makes a vCPU; `index` is also its LAPIC identifier. It belongs to the thread that runs it first.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if there is one with this index, or the host allows no more.
    pub fn create_vcpu(&self, index: u32) -> Result<Vcpu> {
        let fd = self.fd.create_vcpu(index.into()).map_err(|e| refused(&format!("make vCPU {index}"), e))?;
        Vcpu::new(fd, index, self.slots.clone(), self.scales_tsc)
    }

    /// From now on each signal of `event` is an edge on interrupt line `gsi`, without an exit or a system call of ours.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if there is no irqchip or no such line.
    pub fn register_irqfd(&self, event: &EventFd, gsi: u32) -> Result<()> {
        self.fd.register_irqfd(event.inner(), gsi).map_err(|e| refused(&format!("connect an irqfd to gsi={gsi}"), e))
    }

    /// From now on a 32-bit write of `value` to `gpa` signals `event` instead of causing an exit.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if the same address and value are taken.
    pub fn register_doorbell(&self, event: &EventFd, gpa: GuestAddress, value: u32) -> Result<()> {
        self.fd
            .register_ioevent(event.inner(), &IoEventAddress::Mmio(gpa.0), value)
            .map_err(|e| refused(&format!("connect an ioeventfd to gpa={gpa} value={value}"), e))
    }

    /// Sets the level of interrupt line `gsi`.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if there is no irqchip or no such line.
    pub fn set_irq_line(&self, gsi: u32, active: bool) -> Result<()> {
        self.fd.set_irq_line(gsi, active).map_err(|e| refused(&format!("set interrupt line gsi={gsi}"), e))
    }

    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// How many vCPUs KVM allows in one VM.
    pub fn max_vcpus(&self) -> u32 {
        let most = self.fd.check_extension_int(kvm_ioctls::Cap::MaxVcpus);
        u32::try_from(most).unwrap_or(0).max(1)
    }
}

impl std::fmt::Debug for KvmVm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvmVm").finish_non_exhaustive()
    }
}
