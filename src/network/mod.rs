//! A private network between VMs, with the feature `network`: IPv6 alone, nothing allowed unless a rule says so, no TAP device, and no
//! right of root's.
//!
//! A [`Subnet`] is the network's /64, from which the addresses of its [machines](MachineAddress) follow. A tunnel to other hosts takes
//! part by an [`Uplink`]; with the feature `wireguard`, there is one.

mod address;
#[cfg_attr(not(test), allow(dead_code, reason = "used once a network has ports"))]
mod outbox;
mod prefix;
#[cfg_attr(not(test), allow(dead_code, reason = "used once a network has ports"))]
mod reason;
#[cfg_attr(not(test), allow(dead_code, reason = "used once a network has ports"))]
mod uplink;
#[cfg(feature = "wireguard")]
pub mod wireguard;

pub use address::{MachineAddress, Subnet};
pub use prefix::Prefix;
pub use reason::Refusal;
pub use uplink::{Injected, Uplink};
