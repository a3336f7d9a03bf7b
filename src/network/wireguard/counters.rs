//! What a tunnel did, and dropped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::meter::{Counter, Meter, Tally};
use crate::sys::lock;
use crate::sys::sync::Mutex;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a tunnel, under the names that they have in metrics behind `wireguard_`.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Counters {
            $($(#[$doc])* pub(super) $name: Counter,)*
        }

        impl Counters {
            pub(super) fn tell(&self, meter: &mut Meter) {
                $(meter.counter(concat!("wireguard_", stringify!($name)), &self.$name);)*
            }
        }
    };
}

counters! {
    /// Packets that were sealed and given to the socket.
    sent_packets,
    sent_bytes,
    /// Packets that were opened and given to the network.
    received_packets,
    received_bytes,
    /// Handshakes that ended in a key.
    handshakes,
    handshakes_sent,
    cookies_sent,
    keepalives_sent,
    /// Datagrams that are no message of WireGuard.
    dropped_not_wireguard,
    /// Handshakes that were not made for this interface's key.
    dropped_wrong_key,
    /// Handshakes of peers that are not known, or were refused.
    dropped_unknown_peer,
    /// Handshakes above a limit.
    dropped_handshake_limit,
    /// Messages that do not belong to any key in use, or cannot be opened.
    dropped_no_key,
    /// Messages and handshakes that came before, or are too old.
    dropped_replayed,
    /// Messages by a key that is too old, or was used too often.
    dropped_expired,
    /// Opened packets whose source is not the peer's.
    dropped_source,
    /// Opened packets that are no IP packets.
    dropped_malformed,
    /// Packets that no peer has the destination of.
    dropped_no_peer,
    /// Packets for a peer that has not been heard of yet.
    dropped_no_endpoint,
    /// Packets that waited for a handshake for too long, or found too many waiting.
    dropped_waiting,
    /// Datagrams that the socket had no room for.
    dropped_no_room,
    /// Datagrams that the host refused to send.
    dropped_send_failed,
}

/// What is known of a peer, for other threads.
#[derive(Debug)]
pub(super) struct PeerFigures {
    pub(super) sent_bytes: Tally,
    pub(super) received_bytes: Tally,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    handshake: Option<Instant>,
    endpoint: Option<SocketAddr>,
}

/// What became of a peer so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Where its last authentic message came from, or where it was said to be.
    pub endpoint: Option<SocketAddr>,
    /// How long ago keys were exchanged last.
    pub last_handshake: Option<Duration>,
    /// Bytes of packets that were sealed for it.
    pub sent_bytes: u64,
    /// Bytes of packets that came from it.
    pub received_bytes: u64,
}

impl PeerFigures {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent_bytes: Tally::default(), received_bytes: Tally::default(), began: now, seen: Mutex::default() }
    }

    pub(super) fn set_endpoint(&self, endpoint: SocketAddr) {
        lock(&self.seen).endpoint = Some(endpoint);
    }

    pub(super) fn set_handshake(&self, now: Instant) {
        lock(&self.seen).handshake = Some(now);
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let Seen { handshake, endpoint } = *lock(&self.seen);
        PeerStatus {
            endpoint,
            last_handshake: handshake.map(|at| now.saturating_duration_since(at.max(self.began))),
            sent_bytes: self.sent_bytes.get(),
            received_bytes: self.received_bytes.get(),
        }
    }
}
