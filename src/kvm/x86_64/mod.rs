//! What KVM has for x86_64 only.

mod registers;
mod vcpu;
mod vm;

pub use registers::{CpuidEntry, DescriptorTable, Registers, Segment, SpecialRegisters};
pub use vcpu::LocalApicLine;
