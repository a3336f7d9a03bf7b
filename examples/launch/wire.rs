//! The thread that carries a network's packets from launcher to launcher: each a datagram on a Unix socket, whose name the destination's host number says.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmcell::network::{Injected, Uplink};
use vmcell::{Error, ErrorKind, EventFd};

use crate::place::Place;

/// So many packets of one direction, and then it is the other's turn.
const TURN: usize = 64;
/// How long a launcher that has no room is waited for, and for how long it is not waited for again then.
const PATIENCE: Duration = Duration::from_millis(1);
const SULK: Duration = Duration::from_secs(1);
/// So many sockets to other launchers are kept.
const MOST_PEERS: usize = 256;
/// Where an IPv6 header has its destination's host number (docs/network.md, "Addresses").
const HOST_AT: std::ops::Range<usize> = 33..35;
/// No datagram is longer: an IPv6 packet has at most so many bytes behind its header.
const ROOM: usize = 40 + 65536;

/// What became of packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    sent: u64,
    received: u64,
    /// No launcher has that number.
    nobody: u64,
    /// The other launcher had no room.
    full: u64,
    /// They came, and the network took them from nobody.
    refused: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, nobody, full, refused } = self;
        write!(
            f,
            "{sent} packets sent, {received} received; dropped: {nobody} for nobody, {full} for want of room, {refused} refused"
        )
    }
}

/// A thread that carries packets until this is stopped.
pub struct Wire {
    stop: Arc<AtomicBool>,
    bell: Arc<EventFd>,
    thread: JoinHandle<Counts>,
}

impl Wire {
    /// Starts the thread. `bell` is rung when the uplink has packets.
    pub fn start(uplink: Uplink, place: Place, bell: Arc<EventFd>) -> vmcell::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let failed = |e: io::Error| Error::new(ErrorKind::Host, "cannot start the thread of a network").with_source(e);
        let carrier = Carrier {
            uplink,
            spare: Some(new_socket().map_err(failed)?),
            place,
            peers: BTreeMap::new(),
            sulking: BTreeMap::new(),
            blocked: None,
            counts: Counts::default(),
            room: vec![0; ROOM],
        };
        let (stopped, rung) = (Arc::clone(&stop), Arc::clone(&bell));
        let run = move || carrier.run(&stopped, &rung);
        let thread = thread::Builder::new().name("launch-network".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { stop, bell, thread })
    }

    /// Ends the thread, and says what it has carried.
    pub fn stop(self) -> Counts {
        self.stop.store(true, Ordering::SeqCst);
        self.bell.signal();
        self.thread.join().unwrap_or_default()
    }
}

struct Carrier {
    uplink: Uplink,
    place: Place,
    /// Connected to launchers that were there when something was sent to them last.
    peers: BTreeMap<u16, UnixDatagram>,
    /// One that is not connected yet.
    spare: Option<UnixDatagram>,
    /// Launchers that are not waited for until then.
    sulking: BTreeMap<u16, Instant>,
    /// The launcher whose packet is the next one, and until when it is waited for.
    blocked: Option<(u16, Instant)>,
    counts: Counts,
    room: Vec<u8>,
}

/// What became of a packet that was to be sent.
enum Sent {
    Yes,
    Nobody,
    Full,
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool, bell: &EventFd) -> Counts {
        while !stop.load(Ordering::SeqCst) {
            bell.take();
            let more = self.receive() | self.send();
            if !more {
                self.wait(bell);
            }
        }
        let _ = std::fs::remove_file(self.place.socket_of(self.place.host));
        self.counts
    }

    /// Takes what others have sent, and says whether there is more.
    fn receive(&mut self) -> bool {
        for _ in 0..TURN {
            // An error is one of this datagram, or there is none.
            let Ok(len) = self.place.socket.recv(&mut self.room) else {
                self.uplink.flush();
                return false;
            };
            match self.uplink.inject(self.room.get(..len).unwrap_or_default()) {
                Injected::Dropped(_) => self.counts.refused += 1,
                _ => self.counts.received += 1,
            }
        }
        self.uplink.flush();
        true
    }

    /// Sends what the guest has for others, and says whether there is more. If one of them has no room, it is waited for.
    fn send(&mut self) -> bool {
        let Self { uplink, place, peers, spare, sulking, blocked, counts, .. } = self;
        let taken = uplink.drain(TURN, |packet| {
            let Some(host) = host_of(packet) else {
                counts.nobody += 1;
                return true;
            };
            match offer(packet, host, place, peers, spare) {
                Sent::Yes => {
                    counts.sent += 1;
                    *blocked = None;
                    sulking.remove(&host);
                }
                Sent::Nobody => {
                    counts.nobody += 1;
                    *blocked = None;
                }
                Sent::Full => {
                    let now = Instant::now();
                    if sulking.get(&host).is_none_or(|until| *until < now) {
                        let (_, until) = *blocked.get_or_insert((host, now + PATIENCE));
                        if now < until {
                            return false;
                        }
                        sulking.insert(host, now + SULK);
                    }
                    *blocked = None;
                    counts.full += 1;
                }
            }
            true
        });
        // Those that are gone are not remembered.
        sulking.retain(|host, _| peers.contains_key(host));
        taken == TURN
    }

    fn wait(&self, bell: &EventFd) {
        let mut waited = vec![PollFd::new(bell, PollFlags::IN), PollFd::new(&self.place.socket, PollFlags::IN)];
        let mut limit = None;
        if let Some((host, until)) = self.blocked {
            waited.extend(self.peers.get(&host).map(|peer| PollFd::new(peer, PollFlags::OUT)));
            let left = until.saturating_duration_since(Instant::now());
            limit = Some(Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) });
        }
        // A signal is no matter: what there is to do is looked for again.
        let _ = poll(&mut waited, limit.as_ref());
    }
}

/// Gives a packet to the launcher of a host, if there is one. Never blocks.
fn offer(
    packet: &[u8],
    host: u16,
    place: &Place,
    peers: &mut BTreeMap<u16, UnixDatagram>,
    spare: &mut Option<UnixDatagram>,
) -> Sent {
    if let Some(peer) = peers.get(&host) {
        match peer.send(packet) {
            Ok(_) => return Sent::Yes,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Sent::Full,
            // It was gone, and another may have its place.
            Err(_) => _ = peers.remove(&host),
        }
    }
    let Some(peer) = spare.take().or_else(|| new_socket().ok()) else { return Sent::Nobody };
    if peer.connect(place.socket_of(host)).is_err() {
        *spare = Some(peer);
        return Sent::Nobody;
    }
    let sent = match peer.send(packet) {
        Ok(_) => Sent::Yes,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Sent::Full,
        Err(_) => return Sent::Nobody,
    };
    if peers.len() >= MOST_PEERS {
        peers.pop_first();
    }
    peers.insert(host, peer);
    sent
}

fn new_socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whose launcher gets a packet. Host 0 is the network itself.
fn host_of(packet: &[u8]) -> Option<u16> {
    let host = packet.get(HOST_AT)?.try_into().ok()?;
    Some(u16::from_be_bytes(host)).filter(|host| *host > 0)
}
