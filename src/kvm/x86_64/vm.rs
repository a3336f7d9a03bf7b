//! What only a VM of x86_64 has: KVM's own pages, a PC's interrupt controllers and timer, and CPUID.

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};

use super::registers::{CpuidEntry, FromKvm};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::kvm::refused::refused;
use crate::kvm::{Kvm, KvmVm};
use crate::memory::GuestAddress;

impl Kvm {
    /// What KVM and the host's CPU can give a guest, leaf by leaf.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses to say.
    pub fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>> {
        let cpuid = self
            .fd()
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| refused("list the CPUID leaves that it supports", e))?;
        Ok(cpuid.as_slice().iter().map(CpuidEntry::from_kvm).collect())
    }
}

impl KvmVm {
    /// Places the pages that KVM needs for itself on Intel hosts: three at `tss`, one at `identity_map`. Both must lie
    /// below 4 GiB and outside the guest's memory.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses.
    pub fn set_kvm_pages(&self, tss: GuestAddress, identity_map: GuestAddress) -> Result<()> {
        self.fd().set_identity_map_address(identity_map.0).map_err(|e| refused("place its identity map", e))?;
        let address = usize::try_from(tss.0).unwrap_or(usize::MAX);
        self.fd().set_tss_address(address).map_err(|e| refused("place its TSS", e))
    }

    /// Makes the in-kernel PIC, IOAPIC and, for each vCPU made afterwards, LAPIC.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where there is one already, or a vCPU.
    pub fn create_irqchip(&self) -> Result<()> {
        self.fd().create_irq_chip().map_err(|e| refused("make an irqchip", e))
    }

    /// Makes the in-kernel programmable interval timer, which also answers port 0x61.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where there is no irqchip yet.
    pub fn create_pit(&self) -> Result<()> {
        let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        self.fd().create_pit2(config).map_err(|e| refused("make an interval timer", e))
    }
}
