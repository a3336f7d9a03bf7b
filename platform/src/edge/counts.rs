//! How many connections there are, or requests, of all and of each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

/// Counts connections, or requests, up to limits.
pub struct Counts {
    most: usize,
    of_one_address: usize,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One that is counted as long as this lives.
pub struct Counted {
    counts: Arc<Counts>,
    client: IpAddr,
}

impl Counts {
    /// None yet, and at most so many.
    pub fn new(most: usize, of_one_address: usize) -> Self {
        Self { most, of_one_address, tally: Mutex::default() }
    }

    /// Counts one more of this address, or of its network of 64 bits by IPv6, which one client has to itself; `None` if there are as many as may be.
    pub fn add(this: &Arc<Self>, client: IpAddr) -> Option<Counted> {
        let client = whose(client);
        let mut tally = this.tally();
        let own = tally.of.get(&client).copied().unwrap_or(0);
        if tally.all >= this.most || own >= this.of_one_address {
            return None;
        }
        tally.all = tally.all.saturating_add(1);
        tally.of.insert(client, own.saturating_add(1));
        drop(tally);
        Some(Counted { counts: Arc::clone(this), client })
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// What stands for a client.
fn whose(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tally = self.counts.tally();
        tally.all = tally.all.saturating_sub(1);
        match tally.of.get_mut(&self.client) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => drop(tally.of.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_address_nor_all_have_more_than_they_may() {
        let counts = Arc::new(Counts::new(3, 2));
        let add = |last| Counts::add(&counts, IpAddr::from([10, 0, 0, last]));
        let (first, _second) = (add(1), add(1));
        assert!(first.is_some() && add(1).is_none());
        let third = add(2);
        assert!(third.is_some() && add(3).is_none());
        drop(first);
        assert!(add(1).is_some() && counts.tally().of.len() == 2);
        drop(third);
        let tally = counts.tally();
        assert_eq!((tally.of.len(), tally.all), (1, 1));
        drop(tally);
    }
    #[test]
    fn a_network_of_64_bits_is_one_client() {
        let counts = Arc::new(Counts::new(9, 2));
        let add = |address: &str| Counts::add(&counts, address.parse().unwrap());
        let held = (add("fd00::1"), add("fd00::2:3"));
        assert!(
            held.0.is_some() && held.1.is_some() && add("fd00::ffff:0:0:4").is_none() && add("fd00:0:0:1::1").is_some()
        );
        drop(held);
        assert!(add("fd00::5").is_some());
    }
}
