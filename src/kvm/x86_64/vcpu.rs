//! What an x86_64 vCPU can be asked and told.

use kvm_bindings::{CpuId, Msrs, kvm_fpu, kvm_msr_entry};

use super::registers::{CpuidEntry, FromKvm, Registers, SpecialRegisters, ToKvm};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::Vcpu;
use crate::kvm::refused::refused;

/// A local interrupt line of the LAPIC (Intel SDM, volume 3, section 11.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalApicLine {
    /// LINT0, wired to the PIC's interrupt output on a PC.
    Lint0,
    /// LINT1, wired to NMI on a PC.
    Lint1,
}

impl Vcpu {
    /// Reads the general-purpose registers.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses.
    pub fn registers(&self) -> Result<Registers> {
        self.fd().get_regs().map(Registers::from_kvm).map_err(|e| refused("read a vCPU's registers", e))
    }

    /// Sets the general-purpose registers.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses.
    pub fn set_registers(&self, registers: &Registers) -> Result<()> {
        self.fd().set_regs(&registers.to_kvm()).map_err(|e| refused("set a vCPU's registers", e))
    }

    /// Reads segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses.
    pub fn special_registers(&self) -> Result<SpecialRegisters> {
        let sregs = self.fd().get_sregs().map_err(|e| refused("read a vCPU's special registers", e))?;
        Ok(SpecialRegisters::from_kvm(&sregs))
    }

    /// Sets segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses, for instance a control register with reserved bits.
    pub fn set_special_registers(&self, registers: &SpecialRegisters) -> Result<()> {
        self.change_special_registers(|all| *all = *registers)
    }

    /// Changes some of segments, descriptor tables and control registers, and keeps the others.
    pub(crate) fn change_special_registers(&self, change: impl FnOnce(&mut SpecialRegisters)) -> Result<()> {
        let mut sregs = self.fd().get_sregs().map_err(|e| refused("read a vCPU's special registers", e))?;
        let mut registers = SpecialRegisters::from_kvm(&sregs);
        change(&mut registers);
        // What KVM keeps beside these, a pending interrupt, stays as it is.
        registers.store(&mut sregs);
        self.fd().set_sregs(&sregs).map_err(|e| refused("set a vCPU's special registers", e))
    }

    /// Sets model-specific registers, each as its number and value, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] naming the first register that KVM refused; those before it are set.
    pub fn set_msrs(&self, msrs: &[(u32, u64)]) -> Result<()> {
        let entries: Vec<_> =
            msrs.iter().map(|&(index, data)| kvm_msr_entry { index, data, ..Default::default() }).collect();
        let list = Msrs::from_entries(&entries).map_err(|e| {
            Error::new(ErrorKind::Kvm, format!("cannot set {} MSRs at once", msrs.len())).with_source(e)
        })?;
        let done = self.fd().set_msrs(&list).map_err(|e| refused("set a vCPU's MSRs", e))?;
        match msrs.get(done) {
            None => Ok(()),
            Some((index, value)) => {
                Err(Error::new(ErrorKind::Kvm, format!("KVM refused the value {value:#x} for MSR {index:#x}")))
            }
        }
    }

    /// Sets what the `cpuid` instruction answers in the guest.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses an entry.
    pub fn set_cpuid(&self, entries: &[CpuidEntry]) -> Result<()> {
        let entries: Vec<_> = entries.iter().map(CpuidEntry::to_kvm).collect();
        let list = CpuId::from_entries(&entries).map_err(|e| {
            Error::new(ErrorKind::Kvm, format!("cannot set {} CPUID entries at once", entries.len())).with_source(e)
        })?;
        self.fd().set_cpuid2(&list).map_err(|e| refused("set a vCPU's CPUID", e))
    }

    /// Puts the x87 and SSE units into the state that a boot loader leaves them in: all exceptions masked.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses.
    pub fn reset_fpu(&self) -> Result<()> {
        // The values of FNINIT and of power-on: Intel SDM, volume 1, sections 8.1.5 and 10.2.3.
        let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
        self.fd().set_fpu(&fpu).map_err(|e| refused("set a vCPU's FPU", e))
    }

    /// Sets the delivery mode of a local interrupt line: 4 is NMI, 7 is ExtINT.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where there is no in-kernel irqchip.
    pub fn set_lapic_line(&self, line: LocalApicLine, delivery_mode: u8) -> Result<()> {
        self.set_lapic_lines(&[(line, delivery_mode)])
    }

    /// Sets the delivery modes of several local interrupt lines, in two calls of KVM however many there are.
    pub(crate) fn set_lapic_lines(&self, modes: &[(LocalApicLine, u8)]) -> Result<()> {
        let mut lapic = self.fd().get_lapic().map_err(|e| refused("read a vCPU's LAPIC", e))?;
        for (line, delivery_mode) in modes {
            let offset = match line {
                LocalApicLine::Lint0 => 0x350,
                LocalApicLine::Lint1 => 0x360,
            };
            // Delivery mode is bits 8 to 10 of the entry; the mask bit 16 is cleared.
            let entry = u32::from(delivery_mode & 7) << 8;
            for (register, byte) in lapic.regs.iter_mut().skip(offset).zip(entry.to_le_bytes()) {
                *register = byte.cast_signed();
            }
        }
        self.fd().set_lapic(&lapic).map_err(|e| refused("set a vCPU's LAPIC", e))
    }

    /// Where the guest is: the address of its next instruction.
    pub(crate) fn program_counter(&self) -> Result<u64> {
        self.registers().map(|registers| registers.rip)
    }

    /// Tells the guest's clock that time passed in which it did not run, so that its watchdogs stay quiet.
    pub(crate) fn note_pause(&self) {
        // Refused if the guest has no kvm-clock, and then there is nothing to tell.
        let _ = self.fd().kvmclock_ctrl();
    }

    /// The frequency of the time-stamp counter that the guest sees, in kHz.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where the host's counter has no fixed frequency.
    pub fn tsc_khz(&self) -> Result<u32> {
        self.fd().get_tsc_khz().map_err(|e| refused("tell the frequency of the time-stamp counter", e))
    }
}
