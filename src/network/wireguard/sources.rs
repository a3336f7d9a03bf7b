//! How many handshakes are looked into: each takes a multiplication on the curve, whoever it comes from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clock::after;
use super::settings::TunnelLimits;

/// The most sources of a second; others wait for the next one.
const MAX_SOURCES: usize = 4096;

/// Counts the handshakes of this second.
#[derive(Debug, Default)]
pub(super) struct Sources {
    began: Option<Instant>,
    counts: HashMap<[u8; 8], u32>,
    total: u32,
}

impl Sources {
    /// Whether one more from this address is looked into.
    pub(super) fn admit(&mut self, from: IpAddr, limits: &TunnelLimits, now: Instant) -> bool {
        if self.began.is_none_or(|began| after(began, Duration::from_secs(1)) <= now) {
            self.began = Some(now);
            self.counts.clear();
            self.total = 0;
        }
        let source = source(from);
        let full = self.counts.len() >= MAX_SOURCES && !self.counts.contains_key(&source);
        if full || self.total >= limits.handshakes {
            return false;
        }
        let count = self.counts.entry(source).or_default();
        if *count >= limits.handshakes_a_source {
            return false;
        }
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        true
    }
}

/// An IPv4 address, or the /64 of an IPv6 address, which is what one sender has.
pub(super) fn source(from: IpAddr) -> [u8; 8] {
    match from {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_bounded_a_source_in_all_and_again_in_each_second() {
        let limits = TunnelLimits { handshakes: 5, handshakes_a_source: 2, ..TunnelLimits::default() };
        let (mut sources, now) = (Sources::default(), Instant::now());
        let mut admit =
            |from: &str, after: u64| sources.admit(from.parse().unwrap(), &limits, now + Duration::from_millis(after));
        assert!(admit("10.0.0.1", 0) && admit("10.0.0.1", 0) && !admit("10.0.0.1", 999));
        assert!(admit("fd00::1", 0) && admit("fd00::2", 0) && !admit("fd00::3", 0), "one /64");
        assert!(admit("10.0.0.2", 0) && !admit("10.0.0.3", 0), "five in all");
        assert!(admit("10.0.0.1", 1000));
    }

    #[test]
    fn sources_are_bounded_themselves() {
        let limits = TunnelLimits { handshakes: u32::MAX, ..TunnelLimits::default() };
        let (mut sources, now) = (Sources::default(), Instant::now());
        let count = (0..10_000_u32).filter(|n| sources.admit(IpAddr::V4((*n).into()), &limits, now)).count();
        assert_eq!(count, MAX_SOURCES);
        assert!(sources.admit(IpAddr::V4(0.into()), &limits, now));
    }
}
