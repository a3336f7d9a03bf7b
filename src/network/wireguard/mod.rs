//! WireGuard tunnels, with the feature `wireguard`: a private network goes on at other hosts, and laptops come in.
//!
//! A [`Tunnel`] is an interface whose inside is a network, by an [`Uplink`](super::Uplink), and whose outside is a UDP socket. Its peers may be
//! tunnels of other processes, or any other WireGuard: the kernel's, wireguard-go, a telephone's. [`Config`] describes it, and reads and writes what
//! `wg-quick` reads. The handshake (Noise IKpsk2) and the ciphers are boringtun's; the socket, the peers, the timers and the limits are of this crate.
//!
//! # What holds
//! - Nothing of a network leaves in the clear. A packet goes to the peer whose [allowed IPs](PeerConfig::allowed_ips) contain its destination, and a
//!   packet that comes is dropped unless they contain its source; the longest prefix decides.
//! - A message that is not authentic changes no peer, neither its place nor its timers, and the only answer to it is a cookie, while there are many
//!   handshakes. One that comes again is dropped.
//! - All that others can make this side keep or do is bounded, by [`TunnelLimits`]: packets that wait for handshakes, handshakes, questions.
//!   [`Tunnel::metrics`] counts what was dropped by its reason.
//! - A key seals nothing after 180 seconds or 2^64 - 2^13 - 1 messages, and is renewed after 120 seconds in use.
//!
//! # Figures of the protocol that show
//! A packet grows by 60 bytes over IPv4 and by 80 over IPv6, so networks with tunnels have an MTU of 1420. Lengths are padded to 16 bytes.

mod allowed_ip;
mod check;
mod clock;
mod config;
mod counters;
mod engine;
mod key;
mod message;
mod outgoing;
#[cfg(test)]
#[path = "packet_test.rs"]
mod packet;
mod parse;
mod peer;
mod settings;
mod shared;
mod socket;
mod sources;
mod table;
mod tunnel;
mod unknown;
mod waiting;
mod worker;
mod write;

pub use allowed_ip::AllowedIp;
pub use config::{Config, Endpoint, InterfaceAddress, MAX_ALLOWED_IPS, MAX_MTU, MAX_PEERS, MIN_MTU, PeerConfig};
pub use counters::PeerStatus;
#[cfg(any(test, feature = "test-util"))]
pub(crate) use engine::{Engine, Received};
pub use key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
pub use settings::{Timing, TunnelLimits};
pub use shared::UnknownPeer;
pub use tunnel::{Tunnel, TunnelBuilder};

use crate::error::{Error, ErrorKind};

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Network, message)
}

/// A part of a text, as it is shown: short, and on one line.
fn shown(name: &str) -> String {
    name.chars().take(40).map(|one| if one.is_control() { '?' } else { one }).collect()
}
