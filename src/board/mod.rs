//! Which chips a machine of this CPU family has beside its virtio devices, and where: interrupt controllers, timers, the
//! serial port, and the ways for a guest to turn itself off.
//!
//! [`Board`] is all that `vm` knows of a CPU family: it makes a machine of one, and puts virtio devices at the places that
//! `arch` has for them. A new family needs a file here, one in `arch`, and one in `kvm`.

mod parts;
mod x86_64;

pub use parts::ResetCause;
pub(crate) use parts::{Buses, PortsState, PowerEvent, SerialPort};
pub(crate) use x86_64::Board;
#[cfg(any(test, feature = "test-util"))]
pub(crate) use x86_64::connect_ports;
