//! What a tunnel may take of its host, and its times.

use std::time::Duration;

use super::refused;
use crate::error::Result;

/// When keys are exchanged anew, and when one is given up. The defaults are WireGuard's own; shorter times are for tests, and for who wants
/// keys exchanged more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// How old a key is when its initiator makes a new one: 120 s.
    pub rekey_after: Duration,
    /// How old a key is when nothing is sealed or opened by it any more: 180 s, and no more than that.
    pub reject_after: Duration,
    /// How long an answer to a handshake is waited for before another is sent: 5 s.
    pub rekey_timeout: Duration,
    /// How long handshakes are tried before a peer is left alone until there is something for it: 90 s.
    pub rekey_attempt: Duration,
    /// How long after data without an answer to it an empty message is sent: 10 s.
    pub keepalive: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            rekey_timeout: Duration::from_secs(5),
            rekey_attempt: Duration::from_secs(90),
            keepalive: Duration::from_secs(10),
        }
    }
}

/// Limits of a tunnel. What is above one is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelLimits {
    /// The most peers: 1,024.
    pub peers: usize,
    /// The most bytes of packets that wait for a peer's handshake: 128 KiB.
    pub waiting_bytes: usize,
    /// The most bytes of packets that wait for handshakes of all peers together: 8 MiB.
    pub waiting_bytes_total: usize,
    /// How long a packet waits for a handshake: 10 s.
    pub waiting_time: Duration,
    /// From how many handshakes a second on a sender must prove by a cookie that its address is its own: 100.
    pub handshakes_without_cookie: u64,
    /// The most handshakes a second that are looked into: 1,000. Each takes about a tenth of a millisecond.
    pub handshakes: u32,
    /// The most handshakes a second from one IPv4 address or one IPv6 /64: 20.
    pub handshakes_a_source: u32,
    /// The most unknown peers that the host program is asked about at once: 64. One IPv4 address or one IPv6 /64 has an eighth of them.
    pub questions: usize,
    /// The most unknown peers that the host program is asked about in a second: 32, and no more than 4,096. One IPv4 address or one IPv6 /64 has an eighth of them.
    pub questions_a_second: u32,
    /// How long an unknown peer that was refused is not asked about again: 10 s.
    pub refused_for: Duration,
    /// How long a peer that was made just in time is kept without a key in use: 10 minutes.
    pub forget_after: Duration,
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            peers: 1024,
            waiting_bytes: 128 << 10,
            waiting_bytes_total: 8 << 20,
            waiting_time: Duration::from_secs(10),
            handshakes_without_cookie: 100,
            handshakes: 1000,
            handshakes_a_source: 20,
            questions: 64,
            questions_a_second: 32,
            refused_for: Duration::from_secs(10),
            forget_after: Duration::from_secs(600),
        }
    }
}

impl Timing {
    pub(super) fn check(&self) -> Result<()> {
        let most = Self::default();
        let pairs = [
            ("rekey_after", self.rekey_after, most.rekey_after),
            ("reject_after", self.reject_after, most.reject_after),
            ("rekey_timeout", self.rekey_timeout, most.rekey_timeout),
            ("rekey_attempt", self.rekey_attempt, most.rekey_attempt),
            ("keepalive", self.keepalive, most.keepalive),
        ];
        for (name, value, most) in pairs {
            if !(Duration::from_millis(50)..=most).contains(&value) {
                return Err(refused(format!("{name} of a tunnel is {value:?}, allowed are 50 ms to {most:?}")));
            }
        }
        if self.rekey_after > self.reject_after {
            let (rekey, reject) = (self.rekey_after, self.reject_after);
            return Err(refused(format!(
                "rekey_after of a tunnel is {rekey:?}, allowed is up to reject_after, {reject:?}"
            )));
        }
        Ok(())
    }
}

impl TunnelLimits {
    pub(super) fn check(&self) -> Result<()> {
        let most = super::config::MAX_PEERS;
        if !(1..=most).contains(&self.peers) {
            return Err(refused(format!("{} peers of a tunnel were asked for, allowed are 1 to {most}", self.peers)));
        }
        Ok(())
    }
}
