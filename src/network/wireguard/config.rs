//! What an interface and its peers are: plain data, which `wg-quick` files are read into and written from.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::allowed_ip::AllowedIp;
use super::key::{PresharedKey, PrivateKey, PublicKey};
use super::refused;
use crate::error::{Error, ErrorKind, Result};

/// An interface and its peers, as a `wg-quick` file describes them.
///
/// ```
/// use vmcell::network::wireguard::Config;
///
/// let config = Config::parse(
///     "[Interface]
///      PrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=
///      ListenPort = 51820
///
///      [Peer]
///      PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=
///      AllowedIPs = fd00:1::/88
///      Endpoint = 192.0.2.7:51820
///      PersistentKeepalive = 25",
/// )?;
/// assert_eq!(config.listen_port, Some(51820));
/// assert_eq!(config.peers[0].allowed_ips, ["fd00:1::/88".parse()?]);
/// assert_eq!(Config::parse(&config.to_text())?, config);
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What the interface proves that it is itself with.
    pub private_key: PrivateKey,
    /// The UDP port. If there is none, the kernel chooses one.
    pub listen_port: Option<u16>,
    /// The addresses of the interface, each with how many of its bits the network has in common.
    pub addresses: Vec<InterfaceAddress>,
    /// The largest packet in bytes, [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: Option<u16>,
    /// The servers for names.
    pub dns: Vec<IpAddr>,
    /// The domains in which short names are looked for.
    pub search_domains: Vec<String>,
    /// The peers, at most [`MAX_PEERS`].
    pub peers: Vec<PeerConfig>,
}

/// A peer as a configuration describes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerConfig {
    /// Names the peer.
    pub public_key: PublicKey,
    /// A secret that is shared with it beside the keys.
    pub preshared_key: Option<PresharedKey>,
    /// The sources that its packets may have, and the destinations that go to it.
    pub allowed_ips: Vec<AllowedIp>,
    /// Where it is found first. Afterwards it is where its last authentic message came from.
    pub endpoint: Option<Endpoint>,
    /// After how many seconds without a message to it an empty one is sent, so that a NAT in between does not forget it. 0 is never.
    pub persistent_keepalive: u16,
}

/// An address of an interface, with the number of bits that its network has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// The number of bits, 0 to 32 or to 128.
    pub prefix_len: u8,
}

/// Where a peer is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// An address and a port.
    Address(SocketAddr),
    /// A name and a port. A tunnel takes none: see [`resolve`](Self::resolve).
    Name {
        /// The name.
        host: String,
        /// The port, 1 to 65,535.
        port: u16,
    },
}

/// The smallest MTU: what each host must take (RFC 791).
pub const MIN_MTU: u16 = 576;
/// The largest MTU: the largest UDP datagram over IPv4, less 32 bytes of WireGuard, in units of 16 bytes.
pub const MAX_MTU: u16 = 65_472;
/// The most peers of an interface.
pub const MAX_PEERS: usize = 65_536;
/// The most prefixes of a peer.
pub const MAX_ALLOWED_IPS: usize = 1024;

impl Config {
    /// An interface that nobody knows yet.
    pub fn new(private_key: PrivateKey) -> Self {
        Self {
            private_key,
            listen_port: None,
            addresses: Vec::new(),
            mtu: None,
            dns: Vec::new(),
            search_domains: Vec::new(),
            peers: Vec::new(),
        }
    }
}

pub(super) fn check_mtu(mtu: u16) -> Result<()> {
    if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
        return Err(refused(format!("an MTU of {mtu} bytes, allowed are {MIN_MTU} to {MAX_MTU}")));
    }
    Ok(())
}

impl PeerConfig {
    /// A peer that nothing is allowed to yet.
    pub fn new(public_key: PublicKey) -> Self {
        Self { public_key, preshared_key: None, allowed_ips: Vec::new(), endpoint: None, persistent_keepalive: 0 }
    }

    /// Adds addresses that are the peer's.
    #[must_use]
    pub fn allow(mut self, prefix: AllowedIp) -> Self {
        self.allowed_ips.push(prefix);
        self
    }

    /// Sets where it is found first.
    #[must_use]
    pub fn endpoint(mut self, address: SocketAddr) -> Self {
        self.endpoint = Some(Endpoint::Address(address));
        self
    }

    /// Sets the secret that is shared with it beside the keys.
    #[must_use]
    pub fn preshared_key(mut self, key: PresharedKey) -> Self {
        self.preshared_key = Some(key);
        self
    }

    /// Sets after how many seconds without a message to it an empty one is sent. 0 is never.
    #[must_use]
    pub fn persistent_keepalive(mut self, seconds: u16) -> Self {
        self.persistent_keepalive = seconds;
        self
    }
}

impl Endpoint {
    /// Asks the host's resolver for a name, **which blocks**; an address is given back at once. The first address is taken.
    ///
    /// # Errors
    /// [`Network`](ErrorKind::Network) if the name has no address.
    pub fn resolve(&self) -> Result<SocketAddr> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Name { host, port } => {
                let unknown = || Error::new(ErrorKind::Network, format!("the endpoint `{self}` has no address"));
                let mut found =
                    (host.as_str(), *port).to_socket_addrs().map_err(|cause| unknown().with_source(cause))?;
                found.next().ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// Secrets are compared by what is known of them: the public key of a private one, and preshared keys by their bytes.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let of = |config: &Self| (config.private_key.public_key(), config.listen_port, config.mtu);
        of(self) == of(other)
            && self.addresses == other.addresses
            && self.dns == other.dns
            && self.search_domains == other.search_domains
            && self.peers == other.peers
    }
}

impl PartialEq for PeerConfig {
    fn eq(&self, other: &Self) -> bool {
        let shared = |peer: &Self| peer.preshared_key.as_ref().map(|key| *key.bytes());
        self.public_key == other.public_key
            && shared(self) == shared(other)
            && self.allowed_ips == other.allowed_ips
            && self.endpoint == other.endpoint
            && self.persistent_keepalive == other.persistent_keepalive
    }
}
