//! Which peer an address belongs to: the longest prefix that contains it.

use std::collections::HashMap;
use std::net::IpAddr;

use super::allowed_ip::AllowedIp;

/// Prefixes, each with the slot of its peer. A look-up takes as many steps as there are different lengths: one, if every peer is a host with
/// its /88.
#[derive(Debug, Default)]
pub(super) struct Table {
    peers: HashMap<AllowedIp, u32>,
    /// The lengths in use, the longest first, each with how many prefixes have it.
    v4: Vec<(u8, usize)>,
    v6: Vec<(u8, usize)>,
}

impl Table {
    pub(super) fn get(&self, address: IpAddr) -> Option<u32> {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let at = |(len, _): &(u8, usize)| self.peers.get(&AllowedIp::cut(address, *len)).copied();
        lengths.iter().find_map(at)
    }

    pub(super) fn owner(&self, prefix: AllowedIp) -> Option<u32> {
        self.peers.get(&prefix).copied()
    }

    /// A prefix that another peer has stays that peer's; says whether it was free.
    pub(super) fn insert(&mut self, prefix: AllowedIp, peer: u32) -> bool {
        if self.peers.contains_key(&prefix) {
            return false;
        }
        self.peers.insert(prefix, peer);
        let lengths = self.lengths(prefix);
        match lengths.iter_mut().find(|(len, _)| *len == prefix.len()) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => {
                lengths.push((prefix.len(), 1));
                lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        true
    }

    pub(super) fn remove(&mut self, prefix: AllowedIp) {
        if self.peers.remove(&prefix).is_none() {
            return;
        }
        let lengths = self.lengths(prefix);
        if let Some((_, count)) = lengths.iter_mut().find(|(len, _)| *len == prefix.len()) {
            *count = count.saturating_sub(1);
        }
        lengths.retain(|(_, count)| *count > 0);
    }

    /// All IPv6 prefixes.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = AllowedIp> {
        self.peers.keys().copied()
    }

    fn lengths(&mut self, prefix: AllowedIp) -> &mut Vec<(u8, usize)> {
        if prefix.address().is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_has_an_address_until_it_is_removed() {
        let mut table = Table::default();
        let prefixes = ["::/0", "fd00::/16", "fd00:1::/32", "10.0.0.0/8", "0.0.0.0/0"];
        for (peer, text) in (0..).zip(prefixes) {
            assert!(table.insert(text.parse().unwrap(), peer));
        }
        assert!(!table.insert("fd00::/16".parse().unwrap(), 9));
        let get = |table: &Table, text: &str| table.get(text.parse().unwrap());
        assert_eq!(get(&table, "fd00:1::5"), Some(2));
        assert_eq!(get(&table, "fd00:2::5"), Some(1));
        assert_eq!(get(&table, "2001::"), Some(0));
        assert_eq!((get(&table, "10.9.9.9"), get(&table, "11.0.0.0")), (Some(3), Some(4)));
        table.remove("fd00:1::/32".parse().unwrap());
        table.remove("fd00:1::/32".parse().unwrap());
        assert_eq!(get(&table, "fd00:1::5"), Some(1));
        assert_eq!(table.owner("fd00:1::/32".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_every_prefix_finds(
            prefixes in proptest::collection::vec((any::<u8>(), 0_u8..=8), 0..20),
            removed in any::<u32>(),
            address in any::<u8>(),
        ) {
            let of = |byte: u8| IpAddr::from([byte, 0, 0, 0]);
            let mut table = Table::default();
            let mut all = Vec::new();
            for (peer, (byte, len)) in (0..).zip(prefixes) {
                let prefix = AllowedIp::new(of(byte), len).unwrap();
                if table.insert(prefix, peer) {
                    all.push((prefix, peer));
                }
            }
            all.retain(|(prefix, peer)| {
                let stays = removed >> (peer % 32) & 1 == 0;
                if !stays {
                    table.remove(*prefix);
                }
                stays
            });
            let longest = all.iter().filter(|(prefix, _)| prefix.contains(of(address))).max_by_key(|(prefix, _)| prefix.len());
            prop_assert_eq!(table.get(of(address)), longest.map(|(_, peer)| *peer));
        }
    }
}
