//! Laptops that come into the private network by WireGuard.

use std::net::SocketAddr;

use serde::Serialize;
use vmcell::network::wireguard::{AllowedIp, Config, InterfaceAddress, PeerConfig, PrivateKey, PublicKey, Tunnel};
use vmcell::network::{MachineAddress, Network, Prefix, Subnet};

use super::secrets::Secrets;
use crate::app::is_name;
use crate::fault::{Context, Fault, Result};
use crate::state::State;

/// Laptops are like machines of a host that there is not.
const HOST: u16 = 0xee;
/// Those of one host have numbers of so many bits.
const BITS: u32 = 12;
/// The bytes that a packet may have inside the tunnel.
const MTU: u16 = 1420;
/// Keeps the way through a laptop's router open, in seconds.
const KEEPALIVE: u16 = 25;

/// The way in.
pub struct Laptops {
    tunnel: Tunnel,
    /// Where laptops find this host.
    endpoint: SocketAddr,
    /// The number of this host.
    host: u16,
}

/// What is told of a laptop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Its address in the private network.
    pub address: String,
    /// Its public key.
    pub public_key: String,
}

/// The address of a laptop that comes in by this host.
fn address(subnet: Subnet, host: u16, number: u32) -> Result<MachineAddress> {
    Ok(subnet.machine(HOST, (u32::from(host.saturating_sub(1)) << BITS) | number)?)
}

fn peer(address: MachineAddress, key: &str) -> Result<PeerConfig> {
    let key: PublicKey = key.parse()?;
    Ok(PeerConfig::new(key).allow(AllowedIp::single(address.ip().into())))
}

impl Laptops {
    /// Opens the tunnel at the endpoint's port, for all laptops that are known.
    ///
    /// # Errors
    /// The port is in use, or the key cannot be read.
    pub fn open(network: &Network, state: &State, secrets: &Secrets, endpoint: SocketAddr) -> Result<Self> {
        let host = state.own_number()?;
        let mut config = Config::new(PrivateKey::from_bytes(secrets.tunnel_key()?));
        config.listen_port = Some(endpoint.port());
        for (_, number, key) in state.laptops()? {
            config.peers.push(peer(address(network.subnet(), host, number)?, &key)?);
        }
        Ok(Self { tunnel: Tunnel::builder(config).join(network)?, endpoint, host })
    }

    /// Lets a laptop in; returns the text of its configuration, which has its private key and is kept nowhere.
    ///
    /// # Errors
    /// The name is taken or no name.
    pub fn create(&self, network: &Network, state: &State, name: &str) -> Result<String> {
        if !is_name(name) {
            let allowed = "allowed are 1 to 40 lower-case letters, digits and hyphens inside";
            return Err(Fault::new(format!("the name of a laptop: {name:?}; {allowed}"))
                .next("Choose such a name: `cell wireguard create laptop`."));
        }
        let key = PrivateKey::generate()?;
        let number = state.add_laptop(name, &key.public_key().to_string())?;
        let subnet = network.subnet();
        let own = address(subnet, self.host, number)?;
        self.tunnel.add_peer(&peer(own, &key.public_key().to_string())?)?;
        let mut config = Config::new(key);
        config.addresses.push(InterfaceAddress { address: own.ip().into(), prefix_len: 128 });
        config.dns.push(subnet.dns().into());
        config.search_domains.push("internal".to_owned());
        config.mtu = Some(MTU);
        let host = PeerConfig::new(self.tunnel.public_key()).allow(subnet.prefix().into()).endpoint(self.endpoint);
        config.peers.push(host.persistent_keepalive(KEEPALIVE));
        Ok(config.to_text())
    }

    /// Lets a laptop in no longer.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&self, state: &State, name: &str) -> Result<()> {
        let known = state.laptops()?.into_iter().find(|(known, ..)| known == name);
        let (_, _, key) = known.ok_or_else(|| {
            Fault::new(format!("there is no laptop {name}")).next("`cell wireguard list` lists them.")
        })?;
        state.remove_laptop(name)?;
        self.tunnel.remove_peer(&key.parse().context("state: a laptop's key")?)?;
        Ok(())
    }
}

/// What is told of all laptops of this host.
///
/// # Errors
/// Those of the database.
pub fn told(network: &Network, state: &State) -> Result<Vec<Told>> {
    let host = state.own_number()?;
    let told = |(name, number, public_key)| {
        let address = address(network.subnet(), host, number)?.ip().to_string();
        Ok(Told { name, address, public_key })
    };
    state.laptops()?.into_iter().map(told).collect()
}

/// The prefix that the addresses of all laptops of a host are in.
///
/// # Errors
/// None: a host's number is in bounds.
pub(super) fn prefix_of(subnet: Subnet, host: u16) -> Result<Prefix> {
    let first = address(subnet, host, 1)?.ip().to_bits();
    Ok(Prefix::new((first & !((1 << BITS) - 1)).into(), 116)?)
}

/// The prefix that the addresses of all laptops are in.
#[must_use]
pub(super) fn prefix(subnet: Subnet) -> Prefix {
    subnet.host_prefix(HOST)
}
