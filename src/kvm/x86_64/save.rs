//! The way of a vCPU's state out of KVM, and into a vCPU that was made anew.

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_xcr, kvm_xcrs, kvm_xsave,
};

use super::registers::{CpuidEntry, FromKvm, SpecialRegisters, ToKvm};
use super::state::{DebugRegisters, VcpuEvents, VcpuState};
use super::tsc::{Counter, IA32_TSC};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::refused::refused;
use crate::kvm::{Kvm, Vcpu};

/// The deadline of the LAPIC's timer. It counts only once the counter and the timer's mode are set (Intel SDM, volume 3, section 11.5.4.1).
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// Bytes of the XSAVE area that KVM exchanges, if no unit is on that must be asked for apart (AMX).
const XSAVE_LEN: usize = 4096;
const LAPIC_LEN: usize = 1024;

impl Kvm {
    /// Lists the model-specific registers that are part of a vCPU's state, by number.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if KVM refuses to say.
    pub fn msrs_to_save(&self) -> Result<Vec<u32>> {
        let list = self.fd().get_msr_index_list().map_err(|e| refused("list the MSRs to save", e))?;
        Ok(list.as_slice().to_vec())
    }
}

impl Vcpu {
    /// Returns everything that the vCPU is, while it does not run. [`finish_access`](Self::finish_access) comes first, since an
    /// access under way is no part of it. `msrs` are those of [`Kvm::msrs_to_save`]; those that this vCPU does not have are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if KVM refuses a part, which the message names.
    pub fn state(&self, msrs: &[u32]) -> Result<VcpuState> {
        // First, since KVM takes a start-up interrupt here that waits, and that changes the others.
        let activity = self.fd().get_mp_state().map_err(|e| refused("tell whether a vCPU runs", e))?.mp_state;
        let registers = self.registers()?;
        let sregs = self.fd().get_sregs().map_err(|e| refused("read a vCPU's special registers", e))?;
        let cpuid = self.fd().get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(|e| refused("read a vCPU's CPUID", e))?;
        let xcrs = self.fd().get_xcrs().map_err(|e| refused("read a vCPU's extended control registers", e))?;
        let xcrs = xcrs.xcrs.iter().take(xcrs.nr_xcrs.try_into().unwrap_or(0)).map(|xcr| (xcr.xcr, xcr.value));
        let debug = self.fd().get_debug_regs().map_err(|e| refused("read a vCPU's debug registers", e))?;
        let lapic = self.fd().get_lapic().map_err(|e| refused("read a vCPU's LAPIC", e))?;
        Ok(VcpuState {
            version: VcpuState::VERSION,
            cpuid: cpuid.as_slice().iter().map(CpuidEntry::from_kvm).collect(),
            activity,
            registers,
            special_registers: SpecialRegisters::from_kvm(&sregs),
            accepted_interrupt: sregs.interrupt_bitmap,
            xsave: self.xsave()?,
            xcrs: xcrs.collect(),
            debug_registers: DebugRegisters::from_kvm(debug),
            lapic: lapic.regs.iter().map(|byte| byte.cast_unsigned()).collect(),
            msrs: self.msrs(msrs)?,
            tsc_khz: self.tsc_khz().ok(),
            tsc_offset: self.tsc_offset(),
            // Last: reading the others may have delivered something.
            events: self
                .fd()
                .get_vcpu_events()
                .map(VcpuEvents::from_kvm)
                .map_err(|e| refused("tell what is under way to a vCPU", e))?,
        })
    }

    /// Makes a vCPU that has not run yet into the one that had this state.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the state is of another version, a part has another size, or its time-stamp counter another frequency
    /// than this host's, whose CPU cannot scale it; [`ErrorKind::Kvm`] if KVM refuses a part, as for a feature that this host's CPU lacks. The vCPU is of no use then.
    pub fn set_state(&self, state: &VcpuState) -> Result<()> {
        self.set_state_and_counter(state, Counter::Written)
    }

    /// The same, with the time-stamp counter set in one of several ways.
    pub(crate) fn set_state_and_counter(&self, state: &VcpuState, counter: Counter) -> Result<()> {
        state.check()?;
        self.set_cpuid(&state.cpuid)?;
        state.tsc_khz.map_or(Ok(()), |khz| self.set_tsc_khz(khz))?;
        let activity = kvm_mp_state { mp_state: state.activity };
        self.fd().set_mp_state(activity).map_err(|e| refused("set whether a vCPU runs", e))?;
        self.set_registers(&state.registers)?;
        let mut sregs = self.fd().get_sregs().map_err(|e| refused("read a vCPU's special registers", e))?;
        state.special_registers.store(&mut sregs);
        sregs.interrupt_bitmap = state.accepted_interrupt;
        self.fd().set_sregs(&sregs).map_err(|e| refused("set a vCPU's special registers", e))?;
        self.set_xsave(&state.xsave)?;
        self.set_xcrs(&state.xcrs)?;
        let debug = state.debug_registers.to_kvm();
        self.fd().set_debug_regs(&debug).map_err(|e| refused("set a vCPU's debug registers", e))?;
        self.set_lapic(&state.lapic)?;
        // Before the timer's deadline, which is a value of the counter.
        let is_set = match counter {
            Counter::Written => false,
            Counter::Exact => state.counter().map_or(Ok(false), |value| self.set_counter(value))?,
            Counter::Ahead(offset) => self.set_tsc_offset(offset),
        };
        self.set_saved_msrs(&state.msrs, is_set)?;
        // Last: the others change what is under way.
        self.fd().set_vcpu_events(&state.events.to_kvm()).map_err(|e| refused("set what is under way to a vCPU", e))
    }

    /// Reads model-specific registers: number and value. Those that the vCPU does not have are left out.
    pub(super) fn msrs(&self, numbers: &[u32]) -> Result<Vec<(u32, u64)>> {
        let mut found = Vec::with_capacity(numbers.len());
        let mut rest = numbers;
        while !rest.is_empty() {
            let entries: Vec<_> = rest.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
            let mut list = list(&entries)?;
            let done = self.fd().get_msrs(&mut list).map_err(|e| refused("read a vCPU's MSRs", e))?;
            found.extend(list.as_slice().iter().take(done).map(|entry| (entry.index, entry.data)));
            // KVM stops at the first one that it does not have.
            rest = rest.get(done.saturating_add(1)..).unwrap_or_default();
        }
        Ok(found)
    }

    /// In their order, but for the timer's deadline, which comes last. One that KVM refuses is fine if it has the value already: some can
    /// only be read.
    fn set_saved_msrs(&self, msrs: &[(u32, u64)], counter_is_set: bool) -> Result<()> {
        let msrs = msrs.iter().filter(|(number, _)| !counter_is_set || *number != IA32_TSC);
        let (last, first): (Vec<_>, Vec<_>) = msrs.partition(|(number, _)| *number == IA32_TSC_DEADLINE);
        let all: Vec<(u32, u64)> = first.into_iter().chain(last).copied().collect();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let entry = |&(index, data): &(u32, u64)| kvm_msr_entry { index, data, ..Default::default() };
            let entries: Vec<_> = rest.iter().map(entry).collect();
            let done = self.fd().set_msrs(&list(&entries)?).map_err(|e| refused("set a vCPU's MSRs", e))?;
            if let Some((number, value)) = rest.get(done)
                && self.msrs(&[*number])? != [(*number, *value)]
            {
                return Err(Error::new(
                    ErrorKind::Kvm,
                    format!("KVM refused the value {value:#x} for MSR {number:#x}"),
                ));
            }
            rest = rest.get(done.saturating_add(1)..).unwrap_or_default();
        }
        Ok(())
    }

    fn xsave(&self) -> Result<Vec<u8>> {
        let xsave = self.fd().get_xsave().map_err(|e| refused("read a vCPU's XSAVE area", e))?;
        Ok(xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    fn set_xsave(&self, bytes: &[u8]) -> Result<()> {
        let mut xsave = kvm_xsave::default();
        for (word, bytes) in xsave.region.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        // SAFETY: KVM reads more than the structure only for units that a process must ask for apart, and nothing here does.
        unsafe { self.fd().set_xsave(&xsave) }.map_err(|e| refused("set a vCPU's XSAVE area", e))
    }

    fn set_xcrs(&self, values: &[(u32, u64)]) -> Result<()> {
        let mut xcrs = kvm_xcrs { nr_xcrs: u32::try_from(values.len()).unwrap_or(u32::MAX), ..Default::default() };
        for (theirs, &(xcr, value)) in xcrs.xcrs.iter_mut().zip(values) {
            *theirs = kvm_xcr { xcr, value, ..Default::default() };
        }
        self.fd().set_xcrs(&xcrs).map_err(|e| refused("set a vCPU's extended control registers", e))
    }

    fn set_lapic(&self, bytes: &[u8]) -> Result<()> {
        let mut lapic = kvm_lapic_state::default();
        for (register, byte) in lapic.regs.iter_mut().zip(bytes) {
            *register = byte.cast_signed();
        }
        self.fd().set_lapic(&lapic).map_err(|e| refused("set a vCPU's LAPIC", e))
    }
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs> {
    Msrs::from_entries(entries).map_err(|e| {
        Error::new(ErrorKind::Kvm, format!("cannot exchange {} MSRs at once", entries.len())).with_source(e)
    })
}

impl VcpuState {
    /// What KVM would take for something else, or not notice.
    fn check(&self) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.version != Self::VERSION {
            let (version, known) = (self.version, Self::VERSION);
            return refused(format!("the saved state of a vCPU has version {version}, known is {known}"));
        }
        let most_xcrs = kvm_xcrs::default().xcrs.len();
        let parts = [("XSAVE area", self.xsave.len(), XSAVE_LEN), ("LAPIC", self.lapic.len(), LAPIC_LEN)];
        if let Some((part, has, needs)) = parts.into_iter().find(|(_, has, needs)| has != needs) {
            return refused(format!("the saved {part} of a vCPU has {has} bytes, allowed are {needs}"));
        }
        if self.xcrs.len() > most_xcrs {
            let count = self.xcrs.len();
            return refused(format!("a saved vCPU has {count} extended control registers, allowed are {most_xcrs}"));
        }
        Ok(())
    }
}
