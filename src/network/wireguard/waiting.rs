//! Packets that wait for a handshake: bounded in bytes, for a peer and for all of them, and in time.

use std::collections::VecDeque;
use std::time::Instant;

use super::clock::after;
use super::settings::TunnelLimits;

/// What a packet costs beside its bytes.
const COST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Packet>,
    bytes: usize,
}

#[derive(Debug)]
struct Packet {
    until: Instant,
    padded: Vec<u8>,
    len: usize,
}

impl Waiting {
    /// Adds a packet of `len` bytes and its padding, and says whether there was room. `total` is what waits for all peers.
    pub(super) fn add(
        &mut self,
        padded: &[u8],
        len: usize,
        limits: &TunnelLimits,
        total: &mut usize,
        now: Instant,
    ) -> bool {
        let cost = padded.len().saturating_add(COST);
        let (own, all) = (self.bytes.saturating_add(cost), total.saturating_add(cost));
        if own > limits.waiting_bytes || all > limits.waiting_bytes_total {
            return false;
        }
        (self.bytes, *total) = (own, all);
        let until = after(now, limits.waiting_time);
        self.packets.push_back(Packet { until, padded: padded.to_vec(), len });
        true
    }

    /// The first packet with its padding, and its length without that.
    pub(super) fn first(&self) -> Option<(&[u8], usize)> {
        self.packets.front().map(|packet| (&packet.padded[..], packet.len))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn remove_first(&mut self, total: &mut usize) {
        if let Some(packet) = self.packets.pop_front() {
            let cost = packet.padded.len().saturating_add(COST);
            self.bytes = self.bytes.saturating_sub(cost);
            *total = total.saturating_sub(cost);
        }
    }

    /// When the first has waited for long enough.
    pub(super) fn until(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.until)
    }

    /// Drops what has waited for long enough, or everything, and says how many packets that were.
    pub(super) fn drop_until(&mut self, now: Option<Instant>, total: &mut usize) -> u64 {
        let mut count = 0_u64;
        while self.until().is_some_and(|until| now.is_none_or(|now| until <= now)) {
            self.remove_first(total);
            count = count.saturating_add(1);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_waits_is_bounded_in_bytes_in_total_and_in_time() {
        let limits = TunnelLimits { waiting_bytes: 300, waiting_bytes_total: 400, ..TunnelLimits::default() };
        let (start, mut total) = (Instant::now(), 0);
        let (mut one, mut other) = (Waiting::default(), Waiting::default());
        assert!(one.add(&[1; 100], 100, &limits, &mut total, start));
        assert!(!one.add(&[2; 100], 100, &limits, &mut total, start), "328 bytes");
        assert!(one.add(&[3; 60], 60, &limits, &mut total, start + Duration::from_secs(1)));
        assert!(!other.add(&[4; 100], 100, &limits, &mut total, start), "452 bytes of both");
        assert!(other.add(&[4; 10], 10, &limits, &mut total, start));
        assert_eq!(one.first(), Some((&[1; 100][..], 100)));
        let end = one.until().unwrap();
        assert_eq!(one.drop_until(Some(end), &mut total), 1);
        assert_eq!(one.first(), Some((&[3; 60][..], 60)));
        assert_eq!(one.drop_until(None, &mut total), 1);
        other.remove_first(&mut total);
        other.remove_first(&mut total);
        assert_eq!((total, one.bytes, other.bytes), (0, 0, 0));
    }
}
