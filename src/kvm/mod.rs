//! KVM's ioctls: the system, a VM, its vCPUs and their exits. A thin and safe layer over `kvm-ioctls`, and the only room that
//! talks to KVM.
//!
//! What a machine is made of (where its memory lies, what its CPUs look like, which devices it has) is decided above.
//! Orchestrators that build their own machine start here; see `examples/primitives.rs`.
#![allow(unsafe_code, reason = "hands guest memory to KVM and uses the pages that it shares with each vCPU")]

mod capabilities;
mod exit;
mod fd;
mod immediate_exit;
mod kick;
mod refused;
mod slots;
mod system;
mod vcpu;
mod vm;
mod x86_64;

pub use exit::{SystemEvent, VcpuExit};
pub use kick::VcpuKicker;
pub use system::Kvm;
pub use vcpu::Vcpu;
pub use vm::KvmVm;
pub(crate) use x86_64::Counter;
pub use x86_64::{
    ChipsState, CpuidEntry, DebugRegisters, DescriptorTable, LocalApicLine, Registers, Segment, SpecialRegisters,
    TimerChannel, VcpuEvents, VcpuState,
};

#[cfg(all(test, shuttle))]
#[path = "model_test.rs"]
mod models;
