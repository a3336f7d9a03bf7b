//! A tunnel as the host program holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::super::switch::Network;
use super::super::uplink::Uplink;
use super::config::{Config, PeerConfig};
use super::counters::PeerStatus;
use super::engine::Engine;
use super::key::PublicKey;
use super::refused;
use super::settings::{Timing, TunnelLimits};
use super::shared::{Command, Shared, UnknownPeer};
use super::socket::Socket;
use super::worker::Worker;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Membership, Waker};
use crate::meter::Meter;
use crate::sys::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sys::{catch_panic, check_may_wait, lock, spawn};

/// How long an answer of the tunnel's thread is waited for.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// How long packets are that go by a tunnel whose configuration does not say it: what fits through WireGuard on a link of 1500 bytes.
const USUAL_MTU: u16 = 1420;
/// How many packets wait for a tunnel if nothing is said.
const USUAL_PACKETS: usize = 1024;

type Ask = Box<dyn Fn(UnknownPeer) + Send>;

/// A WireGuard interface whose inside is a private network and whose outside is a UDP socket. It needs no right of root's and no
/// support by the kernel. Dropping it closes the socket.
///
/// # Threads
/// An I/O thread serves it: one of its own, unless [`io_thread`](TunnelBuilder::io_thread) gives another. No call of this handle
/// does more than wait for that thread to take part, at most for ten seconds.
pub struct Tunnel {
    // Dropped first: the thread lets go of the socket.
    _membership: Membership,
    shared: Arc<Shared>,
    key: PublicKey,
    local: SocketAddr,
}

/// What a tunnel is made of, before it is started.
pub struct TunnelBuilder {
    config: Config,
    address: Option<IpAddr>,
    limits: TunnelLimits,
    timing: Timing,
    ask: Option<Ask>,
    thread: Option<IoThread>,
    packets: usize,
    waker: Arc<OnceLock<Waker>>,
}

impl Tunnel {
    /// Prepares an interface by its configuration, for [`join`](TunnelBuilder::join). Its addresses and name servers are for whoever configures
    /// the other end's system: a private network has its own.
    ///
    /// ```no_run
    /// use vmcell::network::wireguard::{Config, Tunnel};
    /// use vmcell::network::{Network, NetworkConfig, Subnet};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let network = Network::new(NetworkConfig::new(Subnet::new([0xac, 0x17, 0x05], 7)))?;
    /// let config = Config::parse(&std::fs::read_to_string("wg0.conf")?)?;
    /// let tunnel = Tunnel::builder(config).join(&network)?;
    /// println!("{} listens at {}", tunnel.public_key(), tunnel.local_address());
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(config: Config) -> TunnelBuilder {
        TunnelBuilder {
            config,
            address: None,
            limits: TunnelLimits::default(),
            timing: Timing::default(),
            ask: None,
            thread: None,
            packets: USUAL_PACKETS,
            waker: Arc::default(),
        }
    }

    /// The key by which peers know this interface.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Where the socket is bound to, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Adds a peer. Waits for the tunnel's thread, at most for ten seconds.
    ///
    /// # Errors
    /// [`Network`](ErrorKind::Network): a key or a prefix that another peer has, a name as endpoint, more peers than the limit;
    /// [`InvalidConfig`](ErrorKind::InvalidConfig) for a prefix that lies behind another uplink of the network;
    /// [`InvalidState`](ErrorKind::InvalidState) on a thread that serves VMs or tunnels; [`Timeout`](ErrorKind::Timeout).
    pub fn add_peer(&self, peer: &PeerConfig) -> Result<()> {
        self.ask(|reply| Command::Add(Box::new(peer.clone()), reply))?
    }

    /// Removes a peer: nothing is sent to it or taken from it any more. Says whether there was one. Waits for the tunnel's thread, at most
    /// for ten seconds.
    ///
    /// # Errors
    /// [`InvalidState`](ErrorKind::InvalidState) on a thread that serves VMs or tunnels; [`Timeout`](ErrorKind::Timeout).
    pub fn remove_peer(&self, key: &PublicKey) -> Result<bool> {
        self.ask(|reply| Command::Remove(*key, reply))
    }

    fn ask<R>(&self, command: impl FnOnce(SyncSender<R>) -> Command) -> Result<R> {
        check_may_wait("change the peers of a tunnel")?;
        let (reply, answer) = sync_channel(1);
        self.shared.post(command(reply));
        let late = |_| Error::new(ErrorKind::Timeout, format!("a tunnel's thread did not answer in {REPLY_LIMIT:?}"));
        answer.recv_timeout(REPLY_LIMIT).map_err(late)
    }

    /// What became of each peer so far, also of those that were made just in time. Never blocks for long.
    pub fn peers(&self) -> Vec<(PublicKey, PeerStatus)> {
        let now = Instant::now();
        lock(&self.shared.figures).iter().map(|(key, figures)| (*key, figures.status(now))).collect()
    }

    /// What became of a peer so far; `None` if there is no such peer. Never blocks for long.
    pub fn peer(&self, key: &PublicKey) -> Option<PeerStatus> {
        lock(&self.shared.figures).get(key).map(|figures| figures.status(Instant::now()))
    }

    /// The tunnel's counters, by their names. Never blocks.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let mut meter = Meter::new();
        self.shared.counters.tell(&mut meter);
        meter.read()
    }
}

impl TunnelBuilder {
    /// Binds the socket to one address of the host. Without this it is bound to all of them, of IPv4 and IPv6.
    #[must_use]
    pub fn listen_on(mut self, address: IpAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Sets what the tunnel may take of its host.
    #[must_use]
    pub fn limits(mut self, limits: TunnelLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets when keys are exchanged.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Has the host program asked about peers that are not known, which may make them just in time. Without this, their handshakes are
    /// dropped.
    ///
    /// `ask` is called on a thread of its own, for one peer after the other, and may block: meanwhile, as many others as
    /// [the limit](TunnelLimits::questions) says wait, and the tunnel goes on. The answer may also be given later, on another thread. A panic
    /// refuses the peer. Dropping the tunnel does not wait for it.
    #[must_use]
    pub fn on_unknown_peer(mut self, ask: impl Fn(UnknownPeer) + Send + 'static) -> Self {
        self.ask = Some(Box::new(ask));
        self
    }

    /// Has an I/O thread serve the tunnel that there is already. It must not be one whose system calls are
    /// [filtered](IoThread::seccomp).
    #[must_use]
    pub fn io_thread(mut self, thread: &IoThread) -> Self {
        self.thread = Some(thread.clone());
        self
    }

    /// Sets how many packets of the network may wait for a tunnel that [`join`](Self::join) makes: 1 to 65536. The default is 1024.
    #[must_use]
    pub fn packets(mut self, most: usize) -> Self {
        self.packets = most;
        self
    }

    /// Makes an uplink of a network, and [starts](Self::start) the tunnel on it, which is all that most programs need. Packets of the network that
    /// go there are no longer than the [MTU](Config::mtu) of the configuration, 1420 bytes if it has none; guests that send longer ones are
    /// told.
    ///
    /// # Errors
    /// Those of [`start`](Self::start); [`InvalidConfig`](ErrorKind::InvalidConfig) for an MTU below 1280, and for a number of packets that is
    /// out of range.
    pub fn join(self, network: &Network) -> Result<Tunnel> {
        let uplink = network.uplink(self.config.mtu.unwrap_or(USUAL_MTU), self.packets, self.wake())?;
        self.start(uplink)
    }

    /// The function that wakes the tunnel, which an [`Uplink`] is to be made with that it is [started](Self::start) on. It never blocks, and does
    /// nothing before the tunnel is started, or after it is dropped.
    pub fn wake(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let waker = Arc::clone(&self.waker);
        move || {
            if let Some(waker) = waker.get() {
                waker.wake();
            }
        }
    }

    /// Binds the socket, and joins the tunnel to a network by an uplink that was made with its [`wake`](Self::wake); [`join`](Self::join) makes
    /// one. What lies behind the uplink is set to the peers' IPv6 prefixes: a network has no use for those of IPv4.
    ///
    /// # Errors
    /// [`Network`](ErrorKind::Network) if the configuration is refused (see [`Config::check`]), an endpoint is a name, or the port cannot be
    /// bound; [`InvalidConfig`](ErrorKind::InvalidConfig) for a prefix that lies behind another uplink of the network;
    /// [`Host`](ErrorKind::Host) if the host gives no thread.
    pub fn start(self, uplink: Uplink) -> Result<Tunnel> {
        let asks = self.ask.is_some();
        let mut engine = Engine::new(&self.config, self.limits, self.timing, asks, Instant::now())?;
        if let Some(mtu) = self.config.mtu.filter(|mtu| *mtu < uplink.mtu()) {
            let most = uplink.mtu();
            return Err(refused(format!(
                "the MTU of the tunnel is {mtu} bytes, the network's packets have up to {most}: make the uplink with the tunnel's MTU"
            )));
        }
        engine.set_mtu(uplink.mtu());
        let socket = Socket::bind(self.address, self.config.listen_port.unwrap_or(0))?;
        let (key, local) = (self.config.private_key.public_key(), socket.local());
        let shared = Arc::new(Shared::new(self.waker, engine.counters().clone()));
        *lock(&shared.figures) = engine.figures();
        let questions = self.ask.map(|ask| start_asking(ask, self.limits.questions, &shared)).transpose()?;
        if self.thread.as_ref().is_some_and(IoThread::is_filtered) {
            let message = "the I/O thread of a tunnel is filtered: it may not send and receive by a UDP socket";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let thread = self.thread.map_or_else(|| IoThread::new("vmcell-wg"), Ok)?;
        let worker =
            Worker { engine, socket, uplink, shared: Arc::clone(&shared), questions, tokens: None, more: false };
        let membership = thread.add(Box::new(worker))?;
        Ok(Tunnel { _membership: membership, shared, key, local })
    }
}

type Question = (PublicKey, SocketAddr);

/// Starts the thread that asks the host program. It ends when the tunnel is gone.
fn start_asking(ask: Ask, most: usize, shared: &Arc<Shared>) -> Result<SyncSender<Question>> {
    let (sender, questions): (_, Receiver<Question>) = sync_channel(most);
    let shared = Arc::downgrade(shared);
    spawn("vmcell-wg-ask", move || {
        while let Ok((key, from)) = questions.recv() {
            let unknown = UnknownPeer { key, from, shared: shared.upgrade() };
            // Whoever was not answered is refused, when what was passed is dropped.
            let _ = catch_panic(|| ask(unknown));
        }
    })?;
    Ok(sender)
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("key", &self.key).field("local", &self.local).finish_non_exhaustive()
    }
}

impl fmt::Debug for TunnelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tunnel_test.rs"]
mod tests;
