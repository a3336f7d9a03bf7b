//! The hosts of the mesh as this one knows them, and the tunnel that carries guests' packets between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use vmcell::network::wireguard::{Config, PeerConfig, PrivateKey, PublicKey, Tunnel};
use vmcell::network::{Network, Subnet};

use super::beat::Beat;
use super::laptops;
use super::secrets::Secrets;
use super::token::{Token, digest};
use crate::fault::{Context, Fault, Result};
use crate::link::{Identity, Link, Peer};
use crate::state::{Member, Roster, State};

/// A host that has said nothing for so long is taken for dead.
const DEAD: Duration = Duration::from_secs(5);
/// How long an invitation is good.
const INVITED: Duration = Duration::from_hours(1);

/// This host as one of a mesh.
pub struct Mesh {
    /// Its number.
    pub own: u16,
    /// The way to the others.
    pub link: Link,
    tunnel: Tunnel,
    subnet: Subnet,
    state: Arc<State>,
    /// Kept by whoever changes the hosts.
    roster: Mutex<Arc<Roster>>,
    views: Mutex<BTreeMap<u16, View>>,
    listener: Mutex<Option<TcpListener>>,
}

/// What is known of another host.
#[derive(Clone, Default)]
pub struct View {
    /// When it last said something.
    heard: Option<Instant>,
    /// It does not answer.
    gone: bool,
    /// What it said.
    beat: Arc<Beat>,
}

/// What is told of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its number.
    pub host: u16,
    /// Its name.
    pub name: String,
    /// Where it is found.
    pub endpoint: String,
    /// Whether it is the one that tells.
    pub own: bool,
    /// Whether it says something.
    pub alive: bool,
    /// How long ago it last did, in seconds; none if it never has in the life of this process.
    pub heard: Option<u64>,
}

/// By what a host is known to others: its link and its tunnel.
///
/// # Errors
/// The keys cannot be made, sealed or opened.
pub fn identity(secrets: &Secrets) -> Result<(Identity, PrivateKey)> {
    let made = || serde_json::to_vec(&Identity::generate()?).context("the link between hosts");
    let identity = secrets.own("link.key", made)?;
    let identity = serde_json::from_slice(&identity).context("the sealed key of the link between hosts")?;
    Ok((identity, PrivateKey::from_bytes(secrets.mesh_key()?)))
}

impl Mesh {
    /// Takes the ports, and makes this host the first of a mesh if it is in none.
    ///
    /// # Errors
    /// A port is in use, the name or the address is none, or there is no address.
    pub fn open(
        network: &Network,
        state: &Arc<State>,
        secrets: &Secrets,
        (name, endpoint): (&str, Option<SocketAddr>),
    ) -> Result<Self> {
        let (identity, key) = identity(secrets)?;
        let own = state.own_number()?;
        let (certificate, tunnel) = (identity.digest()?, key.public_key().to_string());
        let roster = match (state.roster()?, endpoint) {
            (Some(roster), endpoint) => moved(roster, own, endpoint),
            (None, Some(endpoint)) => {
                Roster::of_one(Member { number: own, name: name.to_owned(), endpoint, moves: 0, certificate, tunnel })
            }
            (None, None) => return Err(Fault::new("this host is in no mesh")),
        };
        roster.check()?;
        let endpoint = roster.numbered(own).map(|member| member.endpoint);
        let endpoint = endpoint.ok_or_else(|| Fault::new("state: this host is not among those of its mesh"))?;
        state.set_roster(&roster)?;
        let named = || format!("--mesh {endpoint}");
        let listener = TcpListener::bind(endpoint).context(named())?;
        let mut config = Config::new(key);
        config.listen_port = Some(endpoint.port());
        for member in roster.hosts.iter().filter(|member| member.number != own) {
            config.peers.push(peer(network.subnet(), member)?);
        }
        let tunnel = Tunnel::builder(config).listen_on(endpoint.ip()).join(network)?;
        let roster = Mutex::new(Arc::new(roster));
        let (subnet, state, listener) = (network.subnet(), Arc::clone(state), Mutex::new(Some(listener)));
        Ok(Self { own, link: Link::new(identity)?, tunnel, subnet, state, roster, views: Mutex::default(), listener })
    }

    /// Where other hosts come in, which is given away once.
    pub(super) fn listener(&self) -> Option<TcpListener> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Roster>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<u16, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.lock())
    }

    /// The other hosts.
    #[must_use]
    pub fn others(&self) -> Vec<Member> {
        self.roster().hosts.iter().filter(|member| member.number != self.own).cloned().collect()
    }

    /// The way to another host.
    ///
    /// # Errors
    /// There is none with this number.
    pub fn peer(&self, host: u16) -> Result<Peer> {
        let roster = self.roster();
        let member = roster.numbered(host).ok_or_else(|| Fault::new(format!("there is no host {host} any more")))?;
        Ok(Peer { endpoint: member.endpoint, certificate: member.certificate.clone() })
    }

    /// The number of the host whose certificate has this digest.
    #[must_use]
    pub fn known(&self, certificate: &str) -> Option<u16> {
        self.roster().hosts.iter().find(|member| member.certificate == certificate).map(|member| member.number)
    }

    /// Whether a host is found at this address.
    #[must_use]
    pub fn is_found_at(&self, address: IpAddr) -> bool {
        self.roster().hosts.iter().any(|member| member.endpoint.ip().to_canonical() == address)
    }

    /// A new invitation, as text.
    ///
    /// # Errors
    /// Too many are open; those of the database.
    pub fn invite(&self) -> Result<String> {
        let token = Token::new(self.peer(self.own)?)?;
        self.state.invite(&digest(&token.secret), INVITED.as_secs())?;
        Ok(token.to_string())
    }

    /// Takes a host in that has a token; returns its number. One that is in already, with the same keys, gets its number again.
    ///
    /// # Errors
    /// The token is not known, used or too old, the name or the address is none or taken, or there are too many hosts.
    pub fn admit(&self, secret: &str, new: Member) -> Result<u16> {
        let mut roster = self.lock();
        if let Some(known) = roster.hosts.iter().find(|known| known.certificate == new.certificate) {
            let is_same = Member { number: known.number, moves: known.moves, ..new } == *known;
            let other = || Fault::new(format!("this host is in the mesh already, as {}", known.name));
            return if is_same { Ok(known.number) } else { Err(other()) };
        }
        // First of all: what is wrong otherwise tells of the hosts.
        self.state.check_invite(&digest(secret))?;
        let mut next = Roster::clone(&roster);
        let number = next.add(new.clone())?;
        let member = Member { number, ..new };
        self.add_peers(&[&member], || self.state.admit(&digest(secret), &next))?;
        *roster = Arc::new(next);
        Ok(number)
    }

    /// Adds hosts to the tunnel, and then writes down that they are there. If either fails, none is: the tunnel refuses keys that only look like keys,
    /// and one that was written down would be refused at each start.
    fn add_peers(&self, members: &[&Member], write: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut added = Vec::new();
        let mut add = |member: &Member| {
            self.tunnel.add_peer(&peer(self.subnet, member)?)?;
            added.push(key(member)?);
            Ok(())
        };
        let done = members.iter().try_for_each(|member| add(member)).and_then(|()| write());
        if done.is_err() {
            added.iter().for_each(|key| drop(self.tunnel.remove_peer(key)));
        }
        done
    }

    /// Takes a host out.
    ///
    /// # Errors
    /// There is none of this name, or it is this one; those of the database.
    pub fn remove(&self, name: &str) -> Result<()> {
        let roster = self.roster();
        let member = roster.named(name)?;
        if member.number == self.own {
            return Err(Fault::new(format!("{name} is this host")).next("Ask another host of the mesh to remove it."));
        }
        let mut next = Roster::clone(&roster);
        next.remove(member.number);
        self.adopt(&next, self.own).map(drop)
    }

    /// Learns of hosts, and of their ends and addresses, what the host with this number knows. Says whether something was new.
    ///
    /// # Errors
    /// The list cannot be one; those of the database.
    pub fn adopt(&self, theirs: &Roster, from: u16) -> Result<bool> {
        theirs.check()?;
        let mut roster = self.lock();
        let mut newer = roster.merged(theirs, self.own, from);
        if newer.numbered(self.own).is_none() {
            // It was removed, and goes on by itself. Nobody else is to take that for theirs.
            newer = roster.numbered(self.own).cloned().map_or_else(Roster::default, Roster::of_one);
        }
        if newer == **roster {
            return Ok(false);
        }
        newer.check()?;
        let is_new = |member: &&Member| member.number != self.own && roster.numbered(member.number).is_none();
        let new: Vec<&Member> = newer.hosts.iter().filter(is_new).collect();
        self.add_peers(&new, || self.state.set_roster(&newer))?;
        for known in roster.hosts.iter().filter(|member| member.number != self.own) {
            let now = newer.numbered(known.number);
            if now.is_none_or(|now| now.endpoint != known.endpoint) {
                // What it said goes once whoever asks it has noticed, so that what follows from that goes with it.
                self.tunnel.remove_peer(&key(known)?)?;
                if let Some(moved) = now {
                    self.tunnel.add_peer(&peer(self.subnet, moved)?)?;
                }
            }
        }
        *roster = Arc::new(newer);
        Ok(true)
    }

    /// A host has said this, or, if there is nothing, does not answer. Says whether something of it is new.
    pub(super) fn heard(&self, host: u16, beat: Option<Beat>) -> bool {
        let is_member = self.roster().numbered(host).is_some();
        let mut views = self.views();
        if !is_member {
            return views.remove(&host).is_some();
        }
        let view = views.entry(host).or_default();
        let was_alive = view.is_alive();
        view.gone = beat.is_none();
        let Some(beat) = beat else { return was_alive };
        let is_new = !was_alive || !beat.says_the_same(&view.beat);
        (view.heard, view.beat) = (Some(Instant::now()), Arc::new(beat));
        is_new
    }

    /// What is known of the other hosts, by number.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<u16, View> {
        self.views().clone()
    }

    /// Whether a host says something.
    #[must_use]
    pub fn is_alive(&self, host: u16) -> bool {
        host == self.own || self.views().get(&host).is_some_and(View::is_alive)
    }

    /// What is told of all hosts.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        let views = self.seen();
        let told = |member: &Member| {
            let own = member.number == self.own;
            let heard = views.get(&member.number).and_then(|view| view.heard).map(|at| at.elapsed().as_secs());
            Told {
                host: member.number,
                name: member.name.clone(),
                endpoint: member.endpoint.to_string(),
                own,
                alive: self.is_alive(member.number),
                heard: if own { Some(0) } else { heard },
            }
        };
        self.roster().hosts.iter().map(told).collect()
    }
}

impl View {
    /// Whether it says something.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.gone && self.heard.is_some_and(|heard| heard.elapsed() < DEAD)
    }

    /// What it said last.
    #[must_use]
    pub fn beat(&self) -> &Beat {
        &self.beat
    }
}

/// The hosts, if this one is found elsewhere now.
fn moved(mut roster: Roster, own: u16, endpoint: Option<SocketAddr>) -> Roster {
    let found = roster.hosts.iter_mut().find(|member| member.number == own);
    if let (Some(member), Some(endpoint)) = (found, endpoint)
        && member.endpoint != endpoint
    {
        (member.endpoint, member.moves) = (endpoint, member.moves.saturating_add(1));
    }
    roster
}

fn key(member: &Member) -> Result<PublicKey> {
    member.tunnel.parse().context(format!("the tunnel's key of {}", member.name))
}

/// A host as a peer of the tunnel: its machines, and those who come in by it.
fn peer(subnet: Subnet, member: &Member) -> Result<PeerConfig> {
    let peer = PeerConfig::new(key(member)?).endpoint(member.endpoint);
    let laptops = laptops::prefix_of(subnet, member.number)?;
    Ok(peer.allow(subnet.host_prefix(member.number).into()).allow(laptops.into()))
}
