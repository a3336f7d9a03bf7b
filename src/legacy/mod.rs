//! The few devices of an old PC that a kernel cannot do without: a serial port, the keyboard controller's reset line,
//! the clock's index port, the registers that power off and reset a machine without ACPI's fixed hardware, and the one by which
//! a guest says that it panicked.
//!
//! They know neither KVM nor the host: an interrupt is an eventfd, output is a bounded buffer, and a request to end the VM
//! is a callback.

mod cmos;
mod i8042;
mod output;
mod output_limit;
mod output_reader;
mod panic;
mod power;
mod serial;

pub(crate) use cmos::Cmos;
pub(crate) use i8042::{I8042, KeyboardAnswer};
pub(crate) use output::{OutputBuffer, OutputReader};
pub(crate) use output_reader::{Counts, Listening};
pub(crate) use panic::{Panic, PanicEvent};
pub(crate) use power::{Power, PowerRequest, PowerValues};
pub(crate) use serial::{Serial, SerialState};
