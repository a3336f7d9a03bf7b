//! What a board of any CPU family consists of.

use std::sync::Arc;

use crate::bus::Bus;
use crate::legacy::{KeyboardAnswer, OutputBuffer, Serial, SerialState};

/// Everything that a guest's access outside its RAM can reach.
#[derive(Default)]
pub(crate) struct Buses {
    /// Port I/O; empty if the CPU family has none.
    pub(crate) pio: Bus,
    pub(crate) mmio: Bus,
}

/// The port that is the guest's console.
pub(crate) struct SerialPort {
    pub(crate) serial: Arc<Serial>,
    /// What the guest wrote to it.
    pub(crate) output: OutputBuffer,
    /// What the keyboard controller holds for the guest.
    pub(crate) keyboard: KeyboardAnswer,
}

/// The chips that are reached by ports, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub(crate) struct PortsState {
    pub(crate) serial: SerialState,
    pub(crate) keyboard: u8,
}

impl SerialPort {
    pub(crate) fn save(&self) -> PortsState {
        PortsState { serial: self.serial.save(), keyboard: self.keyboard.get() }
    }

    pub(crate) fn restore(&self, state: &PortsState) -> crate::Result<()> {
        self.keyboard.set(state.keyboard);
        self.serial.restore(&state.serial)
    }
}

/// What the guest asked a chip for, or told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerEvent {
    Off,
    Reset(ResetCause),
    /// It panicked, and does nothing more.
    Panicked,
    /// It panicked, and a crash kernel goes on.
    CrashKernel,
}

/// By which way the guest asked for a restart. A kernel chooses one of these for `reboot` and for a panic alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetCause {
    /// The reset register that the ACPI tables name.
    Acpi,
    /// The reset line of the keyboard controller (port 0x64).
    KeyboardController,
    /// A triple fault: by `reboot=t`, or by a guest that lost its way.
    TripleFault,
    /// A request to KVM itself.
    SystemEvent,
}

/// What it was done by, for a sentence.
impl std::fmt::Display for ResetCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Acpi => "the ACPI reset register",
            Self::KeyboardController => "the keyboard controller",
            Self::TripleFault => "a triple fault",
            Self::SystemEvent => "a request to KVM",
        })
    }
}
