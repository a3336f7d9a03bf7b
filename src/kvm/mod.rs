//! The only ioctls to KVM: the system, a VM, its vCPUs and their exits. A thin and safe layer over `kvm-ioctls`.
//!
//! What a machine is made of (where its memory lies, what its CPUs look like, which devices it has) is decided above.
//! Orchestrators that build their own machine start here; see `examples/primitives.rs`.
#![allow(unsafe_code, reason = "hands guest memory to KVM and reads the page that it shares with each vCPU")]

use crate::error::{Error, ErrorKind};

mod exit;
mod immediate_exit;
mod kick;
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
pub use x86_64::{CpuidEntry, DescriptorTable, LocalApicLine, Registers, Segment, SpecialRegisters};

/// The error for a request that KVM turned down.
fn refused(what: &str, cause: kvm_ioctls::Error) -> Error {
    // The foreign error's own text; its type is not part of our interface.
    let cause = std::io::Error::from_raw_os_error(cause.errno());
    Error::new(ErrorKind::Kvm, format!("KVM refused to {what}")).with_source(cause)
}
