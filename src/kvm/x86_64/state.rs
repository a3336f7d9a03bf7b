//! Everything that a vCPU is between two instructions, as plain values.

use kvm_bindings::{kvm_debugregs, kvm_vcpu_events};

use super::registers::{CpuidEntry, FromKvm, Registers, SpecialRegisters, ToKvm};

/// Everything that a vCPU is between two instructions: enough to make it anew in another VM, with memory of the same content, and
/// go on there.
///
/// [`Vcpu::state`](crate::kvm::Vcpu::state) makes it, [`Vcpu::set_state`](crate::kvm::Vcpu::set_state) reads it. Its fields are
/// public so that it can be stored and changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct VcpuState {
    /// The version of this format, [`VERSION`](Self::VERSION).
    pub version: u32,
    /// What the `cpuid` instruction answers.
    pub cpuid: Vec<CpuidEntry>,
    /// Whether it runs, halts or waits to be started (`KVM_GET_MP_STATE`).
    pub activity: u32,
    /// The general-purpose registers.
    pub registers: Registers,
    /// Segments, descriptor tables and control registers.
    pub special_registers: SpecialRegisters,
    /// The interrupt that was accepted and not delivered yet: a bit for each vector, in four words.
    pub accepted_interrupt: [u64; 4],
    /// The x87, SSE and further units, in the layout of the XSAVE instruction (Intel SDM, volume 1, section 13.4).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex"))]
    pub xsave: Vec<u8>,
    /// The extended control registers: number and value.
    pub xcrs: Vec<(u32, u64)>,
    /// The debug registers.
    pub debug_registers: DebugRegisters,
    /// The registers of the local APIC, a page's first KiB (Intel SDM, volume 3, section 11.4.1).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex"))]
    pub lapic: Vec<u8>,
    /// The model-specific registers: number and value, the time-stamp counter among them.
    pub msrs: Vec<(u32, u64)>,
    /// Exceptions, interrupts and the like that are under way.
    pub events: VcpuEvents,
    /// The frequency of the time-stamp counter in kHz, if the host knows it.
    pub tsc_khz: Option<u32>,
    /// How far the time-stamp counter was ahead of the host's, modulo 2^64, if KVM tells: by how much the counters of two vCPUs differ.
    pub tsc_offset: Option<u64>,
}

impl VcpuState {
    /// The version of the format that this version of the crate writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

/// The debug registers (Intel SDM, volume 3, section 18.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(missing_docs, reason = "named as in the manual")]
pub struct DebugRegisters {
    pub dr0: u64,
    pub dr1: u64,
    pub dr2: u64,
    pub dr3: u64,
    pub dr6: u64,
    pub dr7: u64,
}

/// What is under way to a vCPU (`KVM_GET_VCPU_EVENTS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct VcpuEvents {
    /// An exception is being delivered.
    pub exception_injected: bool,
    /// An exception is about to be delivered.
    pub exception_pending: bool,
    /// The exception's vector.
    pub exception_vector: u8,
    /// Whether it has an error code, and which one.
    pub exception_error_code: Option<u32>,
    /// What it leaves in a register besides, such as an address in CR2.
    pub exception_payload: Option<u64>,
    /// An interrupt is being delivered.
    pub interrupt_injected: bool,
    /// The interrupt's vector.
    pub interrupt_vector: u8,
    /// It is one by the INT instruction.
    pub interrupt_is_soft: bool,
    /// What keeps interrupts off for one instruction: bit 0 after MOV SS, bit 1 after STI.
    pub interrupt_shadow: u8,
    /// A non-maskable interrupt is being delivered.
    pub nmi_injected: bool,
    /// How many more of them wait.
    pub nmi_pending: u8,
    /// They are off until the next IRET.
    pub nmi_masked: bool,
    /// The page at which a start-up interrupt lets the vCPU begin.
    pub sipi_vector: u32,
    /// It is in system management mode.
    pub in_smm: bool,
    /// A system management interrupt waits.
    pub smi_pending: bool,
    /// System management mode was entered with non-maskable interrupts off.
    pub smm_inside_nmi: bool,
    /// An INIT waits until system management mode is left.
    pub init_latched: bool,
    /// It is about to shut down by a triple fault.
    pub triple_fault_pending: bool,
    /// Which of these KVM vouches for (`KVM_VCPUEVENT_VALID_*`).
    pub valid: u32,
}

impl FromKvm<kvm_debugregs> for DebugRegisters {
    fn from_kvm(theirs: kvm_debugregs) -> Self {
        let [dr0, dr1, dr2, dr3] = theirs.db;
        Self { dr0, dr1, dr2, dr3, dr6: theirs.dr6, dr7: theirs.dr7 }
    }
}

impl ToKvm<kvm_debugregs> for DebugRegisters {
    fn to_kvm(&self) -> kvm_debugregs {
        let &Self { dr0, dr1, dr2, dr3, dr6, dr7 } = self;
        kvm_debugregs { db: [dr0, dr1, dr2, dr3], dr6, dr7, ..Default::default() }
    }
}

impl FromKvm<kvm_vcpu_events> for VcpuEvents {
    fn from_kvm(theirs: kvm_vcpu_events) -> Self {
        let kvm_vcpu_events { exception, interrupt, nmi, smi, .. } = theirs;
        Self {
            exception_injected: exception.injected != 0,
            exception_pending: exception.pending != 0,
            exception_vector: exception.nr,
            exception_error_code: (exception.has_error_code != 0).then_some(exception.error_code),
            exception_payload: (theirs.exception_has_payload != 0).then_some(theirs.exception_payload),
            interrupt_injected: interrupt.injected != 0,
            interrupt_vector: interrupt.nr,
            interrupt_is_soft: interrupt.soft != 0,
            interrupt_shadow: interrupt.shadow,
            nmi_injected: nmi.injected != 0,
            nmi_pending: nmi.pending,
            nmi_masked: nmi.masked != 0,
            sipi_vector: theirs.sipi_vector,
            in_smm: smi.smm != 0,
            smi_pending: smi.pending != 0,
            smm_inside_nmi: smi.smm_inside_nmi != 0,
            init_latched: smi.latched_init != 0,
            triple_fault_pending: theirs.triple_fault.pending != 0,
            valid: theirs.flags,
        }
    }
}

impl ToKvm<kvm_vcpu_events> for VcpuEvents {
    fn to_kvm(&self) -> kvm_vcpu_events {
        let mut theirs = kvm_vcpu_events { sipi_vector: self.sipi_vector, flags: self.valid, ..Default::default() };
        theirs.exception.injected = self.exception_injected.into();
        theirs.exception.pending = self.exception_pending.into();
        theirs.exception.nr = self.exception_vector;
        theirs.exception.has_error_code = self.exception_error_code.is_some().into();
        theirs.exception.error_code = self.exception_error_code.unwrap_or_default();
        theirs.exception_has_payload = self.exception_payload.is_some().into();
        theirs.exception_payload = self.exception_payload.unwrap_or_default();
        theirs.interrupt.injected = self.interrupt_injected.into();
        theirs.interrupt.nr = self.interrupt_vector;
        theirs.interrupt.soft = self.interrupt_is_soft.into();
        theirs.interrupt.shadow = self.interrupt_shadow;
        theirs.nmi.injected = self.nmi_injected.into();
        theirs.nmi.pending = self.nmi_pending;
        theirs.nmi.masked = self.nmi_masked.into();
        theirs.smi.smm = self.in_smm.into();
        theirs.smi.pending = self.smi_pending.into();
        theirs.smi.smm_inside_nmi = self.smm_inside_nmi.into();
        theirs.smi.latched_init = self.init_latched.into();
        theirs.triple_fault.pending = self.triple_fault_pending.into();
        theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_way_to_kvm_and_back() {
        let events = VcpuEvents {
            exception_injected: true,
            exception_vector: 14,
            exception_error_code: Some(2),
            exception_payload: Some(0x1000),
            interrupt_injected: true,
            interrupt_vector: 32,
            interrupt_shadow: 2,
            nmi_pending: 1,
            nmi_masked: true,
            sipi_vector: 9,
            smm_inside_nmi: true,
            triple_fault_pending: true,
            valid: 0x3f,
            ..VcpuEvents::default()
        };
        assert_eq!(VcpuEvents::from_kvm(events.to_kvm()), events);
        let others = VcpuEvents {
            exception_pending: true,
            interrupt_is_soft: true,
            nmi_injected: true,
            in_smm: true,
            smi_pending: true,
            init_latched: true,
            ..VcpuEvents::default()
        };
        assert_eq!(VcpuEvents::from_kvm(others.to_kvm()), others);
    }
}
