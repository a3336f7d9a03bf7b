//! The ports of a network by their addresses.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::party::PortEnd;

/// Of so many parts, a change copies one.
const PARTS: usize = 64;

/// Copies of it share what they have in common: each card keeps the one that it saw last, and thousands of cards look at different times.
#[derive(Clone)]
pub(super) struct Ports {
    parts: Vec<Arc<Part>>,
    len: usize,
}

type Part = HashMap<Ipv6Addr, Arc<PortEnd>>;

impl Default for Ports {
    fn default() -> Self {
        Self { parts: vec![Arc::default(); PARTS], len: 0 }
    }
}

impl Ports {
    pub(super) fn get(&self, address: Ipv6Addr) -> Option<&Arc<PortEnd>> {
        self.parts.get(part(address))?.get(&address)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<PortEnd>> {
        self.parts.iter().flat_map(|part| part.values())
    }

    /// Adds a port whose address is free.
    pub(super) fn insert(&mut self, end: &Arc<PortEnd>) {
        let address = end.address.ip();
        let part = self.parts.get_mut(part(address)).map(Arc::make_mut);
        if part.is_some_and(|part| part.insert(address, Arc::clone(end)).is_none()) {
            self.len = self.len.saturating_add(1);
        }
    }

    pub(super) fn remove(&mut self, address: Ipv6Addr) {
        let part = self.parts.get_mut(part(address)).map(Arc::make_mut);
        if part.is_some_and(|part| part.remove(&address).is_some()) {
            self.len = self.len.saturating_sub(1);
        }
    }
}

/// By the machine's number and its host's, whichever of them are counted up.
fn part(address: Ipv6Addr) -> usize {
    let [.., h0, h1, _, _, m0, m1, m2] = address.octets();
    let mixed = [h0, h1, m0, m1, m2].iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    mixed.checked_rem(PARTS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkConfig;
    use crate::network::packets::{SUBNET, machine};

    fn end(number: u32) -> Arc<PortEnd> {
        Arc::new(PortEnd::new(
            machine(number),
            machine(number),
            NetworkConfig::new(SUBNET).flows,
            std::time::Duration::ZERO,
        ))
    }

    #[test]
    fn a_copy_shares_all_but_what_changes_and_stays_as_it_was() {
        let mut ports = Ports::default();
        (1..=1000).for_each(|number| ports.insert(&end(number)));
        let before = ports.clone();
        ports.insert(&end(1001));
        ports.remove(machine(7).ip());
        ports.remove(machine(5000).ip());
        let shared = ports.parts.iter().zip(&before.parts).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert!(shared >= PARTS - 3, "{shared}");
        assert_eq!((ports.len(), ports.iter().count(), before.len(), before.iter().count()), (1000, 1000, 1000, 1000));
        let has = |ports: &Ports, number| ports.get(machine(number).ip()).is_some();
        assert_eq!([7, 1001].map(|number| (has(&before, number), has(&ports, number))), [(true, false), (false, true)]);
        assert!(ports.parts.iter().all(|part| part.len() < 60), "machines that are counted up spread");
    }
}
