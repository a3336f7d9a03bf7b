//! A private network between VMs, with the feature `network`: IPv6 alone, nothing allowed unless a rule says so, no TAP device, and no
//! right of root's.
//!
//! A [`Network`] is a switch in this process. Its [`Subnet`] is a /64, from which the addresses of its [machines](MachineAddress) follow;
//! each machine has a [`Port`], on which its card is put, and [`Rule`]s say who may begin to speak with whom. A tunnel to other hosts
//! takes part by an [`Uplink`]; with the feature `wireguard`, there is one. A [`Service`] is an address that stands for several machines, and
//! may have them started when a packet comes.
//!
//! The world outside is another card's: one that [`Passt`] serves, a process that speaks for the guest.

mod address;
mod checksum;
#[cfg(test)]
mod clone_test;
mod dns;
mod flows;
mod frame_stream;
mod join;
mod names;
mod neighbour;
mod outbox;
mod packet;
#[cfg(test)]
#[path = "packets_test.rs"]
mod packets;
mod parcel;
mod party;
mod passt;
mod policy;
mod pool;
mod port;
mod ports;
mod prefix;
mod pulse;
mod reason;
mod refuse;
mod reply;
mod rule;
mod service;
mod settings;
mod switch;
mod translate;
mod uplink;
mod view;
mod way;
#[cfg(feature = "wireguard")]
pub mod wireguard;

pub use address::{MachineAddress, Subnet};
pub use frame_stream::FrameStream;
pub use passt::Passt;
pub use policy::RuleCount;
pub use port::Port;
pub use prefix::Prefix;
pub use reason::Refusal;
pub use rule::Rule;
pub use service::{Demand, Service, ServiceConfig, ServiceMember};
pub use settings::NetworkConfig;
pub use switch::Network;
pub use uplink::{Injected, Uplink};
