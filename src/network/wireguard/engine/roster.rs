//! Peers come and go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::check::{check_endpoint, peer_key};
use super::super::config::{Endpoint, MAX_ALLOWED_IPS, PeerConfig};
use super::super::counters::PeerFigures;
use super::super::key::PublicKey;
use super::super::peer::{NewPeer, Peer};
use super::super::refused;
use super::{Engine, canonical};
use crate::error::Result;
use crate::sys::random_bytes;

impl Engine {
    /// Adds a peer. One that is `temporary` is forgotten if it is not heard of.
    ///
    /// # Errors
    /// Those of [`Config::check`]; a name as endpoint; more peers than the limit.
    pub(in super::super) fn add_peer(
        &mut self,
        config: &PeerConfig,
        temporary: bool,
        now: Instant,
    ) -> Result<Arc<PeerFigures>> {
        let endpoint = self.check_peer(config)?;
        let index = self.new_index()?;
        let slot = self.free.pop().map_or_else(|| u32::try_from(self.peers.len()), Ok);
        let slot = slot.map_err(|_| refused("there are too many peers"))?;
        let new = NewPeer {
            private: &self.private,
            key: config.public_key,
            preshared: config.preshared_key.as_ref().map(|key| *key.bytes()),
            index,
            endpoint,
            persistent_keepalive: config.persistent_keepalive,
            limiter: Arc::clone(&self.unlimited),
            temporary,
        };
        let peer = Peer::new(new, config.allowed_ips.clone(), now);
        let figures = Arc::clone(&peer.figures);
        for prefix in &config.allowed_ips {
            self.table.insert(*prefix, slot);
        }
        self.by_key.insert(config.public_key, slot);
        self.by_index.insert(index, slot);
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        match self.peers.get_mut(at) {
            Some(place) => *place = Some(peer),
            None => self.peers.push(Some(peer)),
        }
        self.with(slot, now, |_, _| ());
        Ok(figures)
    }

    fn check_peer(&self, config: &PeerConfig) -> Result<Option<SocketAddr>> {
        let key = config.public_key;
        peer_key(&key, &self.private, &self.public)?;
        if self.by_key.contains_key(&key) {
            return Err(refused(format!("there is a peer with the public key {key} already")));
        }
        if self.by_key.len() >= self.limits.peers {
            return Err(refused(format!("a tunnel has {} peers, which is its limit", self.limits.peers)));
        }
        let count = config.allowed_ips.len();
        if count > MAX_ALLOWED_IPS {
            return Err(refused(format!("{count} allowed IPs of a peer, allowed are {MAX_ALLOWED_IPS}")));
        }
        for (number, prefix) in config.allowed_ips.iter().enumerate() {
            let twice = config.allowed_ips.iter().take(number).any(|earlier| earlier == prefix);
            if twice || self.table.owner(*prefix).is_some() {
                return Err(refused(format!("{prefix} is allowed to a peer already: a packet to it has one way")));
            }
        }
        match &config.endpoint {
            None => Ok(None),
            Some(endpoint @ Endpoint::Address(address)) => {
                check_endpoint(endpoint)?;
                Ok(Some(canonical(*address)))
            }
            Some(Endpoint::Name { .. }) => Err(refused(format!(
                "the endpoint `{}` of a peer is a name, which takes waiting to resolve: use `Endpoint::resolve` before",
                config.endpoint.as_ref().map(ToString::to_string).unwrap_or_default()
            ))),
        }
    }

    /// A number of 24 bits that no other peer has, and that tells nobody how many there are.
    fn new_index(&self) -> Result<u32> {
        for _ in 0..1000 {
            let mut bytes = [0; 4];
            random_bytes(&mut bytes).map_err(|cause| refused("there are no random bytes").with_source(cause))?;
            let index = u32::from_le_bytes(bytes) >> 8;
            if !self.by_index.contains_key(&index) {
                return Ok(index);
            }
        }
        Err(refused("there are too many peers"))
    }

    /// Removes a peer; what waits for it is dropped. Says whether there was one.
    pub(in super::super) fn remove_peer(&mut self, key: &PublicKey, now: Instant) -> bool {
        let Some(slot) = self.by_key.get(key).copied() else { return false };
        self.with(slot, now, |peer, work| peer.end(work));
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        if let Some(peer) = self.peers.get_mut(at).and_then(Option::take) {
            self.by_key.remove(key);
            self.by_index.remove(&peer.index);
            peer.allowed.iter().for_each(|prefix| self.table.remove(*prefix));
            if let Some(registered) = peer.registered {
                self.due.remove(&(registered, slot));
            }
            self.free.push(slot);
        }
        true
    }
}
