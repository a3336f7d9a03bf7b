//! Checks keys and prefixes against each other.

use std::collections::HashMap;

use super::allowed_ip::AllowedIp;
use super::config::{Config, Endpoint, MAX_ALLOWED_IPS, MAX_PEERS, check_mtu};
use super::key::{PrivateKey, PublicKey};
use super::{refused, shown};
use crate::error::{Error, Result};

/// The longest name of a host (RFC 1035), and of a domain.
const MAX_NAME: usize = 253;

impl Config {
    /// Checks what [`parse`](Self::parse) checks, for a configuration that was put together by a program.
    ///
    /// # Errors
    /// [`Network`](crate::ErrorKind::Network): an MTU that is not allowed, too many peers or prefixes, a key or a prefix of two peers, a peer with
    /// the interface's own key or one that everybody can prove to have, an endpoint's name or a search domain that is no name, an endpoint's port 0.
    pub fn check(&self) -> Result<()> {
        let mut seen = Seen::new(&self.private_key);
        if let Some(mtu) = self.mtu {
            check_mtu(mtu)?;
        }
        for domain in &self.search_domains {
            host_name(domain).map_err(|error| error.about("a search domain"))?;
        }
        for (index, peer) in self.peers.iter().enumerate() {
            let named = |error: Error| match self.private_key.is_given_away_by(&peer.public_key) {
                true => error.about(&format!("peer {index}")),
                false => error.about(&format!("peer {index} ({})", peer.public_key)),
            };
            seen.key(&peer.public_key, index).map_err(named)?;
            peer.allowed_ips.iter().try_for_each(|prefix| seen.prefix(*prefix, index)).map_err(named)?;
            if let Some(endpoint) = &peer.endpoint {
                check_endpoint(endpoint).map_err(named)?;
            }
            if peer.allowed_ips.len() > MAX_ALLOWED_IPS {
                let count = peer.allowed_ips.len();
                return Err(named(refused(format!("{count} allowed IPs, allowed are {MAX_ALLOWED_IPS}"))));
            }
        }
        Ok(())
    }
}

/// Refuses a place where nobody can be found.
pub(super) fn check_endpoint(endpoint: &Endpoint) -> Result<()> {
    let port = match endpoint {
        Endpoint::Address(address) => address.port(),
        Endpoint::Name { host, port } => {
            host_name(host)?;
            *port
        }
    };
    if port == 0 {
        return Err(refused(format!("the endpoint `{endpoint}` has port 0, allowed are 1 to 65535")));
    }
    Ok(())
}

/// A name as hosts and domains have it. One that could be taken for an address with a slip in it is refused.
pub(super) fn host_name(name: &str) -> Result<&str> {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > MAX_NAME || number || !name.split('.').all(label) {
        return Err(refused(format!("`{}` is neither an address nor a name", shown(name))));
    }
    Ok(name)
}

/// Refuses a peer's public key that is the interface's own, or that tells nothing about who has it.
pub(super) fn peer_key(key: &PublicKey, private: &PrivateKey, own: &PublicKey) -> Result<()> {
    if private.is_given_away_by(key) {
        return Err(refused("the private key of the interface stands where a public key should"));
    }
    if key == own {
        return Err(refused("the public key is that of the interface itself"));
    }
    if private.shares_nothing_with(key) {
        return Err(refused(format!("the public key {key} proves nothing: everybody can compute its secrets")));
    }
    Ok(())
}

/// The keys and prefixes so far, each with its place: the index of a peer, or a line.
pub(super) struct Seen {
    private: PrivateKey,
    own: PublicKey,
    keys: HashMap<PublicKey, usize>,
    prefixes: HashMap<AllowedIp, usize>,
}

impl Seen {
    pub(super) fn new(private: &PrivateKey) -> Self {
        let own = private.public_key();
        Self { private: private.clone(), own, keys: HashMap::new(), prefixes: HashMap::new() }
    }

    pub(super) fn key(&mut self, key: &PublicKey, place: usize) -> Result<()> {
        peer_key(key, &self.private, &self.own)?;
        if self.keys.len() >= MAX_PEERS {
            return Err(refused(format!("more peers than {MAX_PEERS}")));
        }
        match self.keys.insert(*key, place) {
            None => Ok(()),
            Some(first) => Err(refused(format!("the public key {key} is that of an earlier peer (at {first}), too"))),
        }
    }

    pub(super) fn prefix(&mut self, prefix: AllowedIp, place: usize) -> Result<()> {
        match self.prefixes.insert(prefix, place) {
            None => Ok(()),
            Some(first) => {
                Err(refused(format!("{prefix} is allowed twice, first at {first}: a packet to it has one way")))
            }
        }
    }
}
