//! What KVM has for x86_64 only.

mod chips;
mod registers;
mod save;
mod state;
mod tsc;
mod vcpu;
mod vm;

pub use chips::{ChipsState, TimerChannel};
pub use registers::{CpuidEntry, DescriptorTable, Registers, Segment, SpecialRegisters};
pub use state::{DebugRegisters, VcpuEvents, VcpuState};
pub(crate) use tsc::Counter;
pub use vcpu::LocalApicLine;
