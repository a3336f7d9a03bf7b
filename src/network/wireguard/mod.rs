//! WireGuard tunnels, with the feature `wireguard`: keys, and configurations as `wg-quick` has them.

mod allowed_ip;
mod check;
mod config;
mod key;
mod parse;

mod write;

pub use allowed_ip::AllowedIp;
pub use config::{Config, Endpoint, InterfaceAddress, MAX_ALLOWED_IPS, MAX_MTU, MAX_PEERS, MIN_MTU, PeerConfig};
pub use key::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};

use crate::error::{Error, ErrorKind};

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Network, message)
}
