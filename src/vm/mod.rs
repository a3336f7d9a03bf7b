//! A whole machine: its builder, its handle, the threads of its vCPUs, and the order in which it starts and ends.

mod builder;
mod control;
mod exit;
mod handle;
mod machine;
mod vcpu;

pub use builder::VmBuilder;
pub use exit::{Exit, ResetCause, Status};
pub use handle::Vm;
