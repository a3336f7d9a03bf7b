use proptest::prelude::*;

use super::*;
use crate::network::packets::{ipv6, machine};

#[test]
fn headers_that_are_cut_short_are_refused() {
    for (protocol, least) in [(6, 20), (17, 8), (58, 8)] {
        let mut payload = [0; 60];
        payload[12] = 0x50;
        (payload[0], payload[13]) = (128, 0x10);
        for len in 1..=30u8 {
            payload[5] = len;
            let packet = ipv6(machine(1).ip(), machine(2).ip(), protocol, &payload[..len.into()]);
            let read = Packet::parse(&packet, packet.len() as u64).map(|packet| packet.headers);
            assert_eq!(
                read,
                if len < least { Err(Refusal::Malformed) } else { Ok(40 + usize::from(least)) },
                "{protocol} {len}"
            );
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_within_what_is_there(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fits: bool, next in 0u8..=143) {
        // Random bytes are hardly ever IPv6.
        if fits && bytes.len() > 40 {
            bytes[0] = 0x60;
            let payload = u16::try_from(bytes.len() - 40).unwrap();
            bytes[4..6].copy_from_slice(&payload.to_be_bytes());
            bytes[6] = next;
        }
        let head = &bytes[..bytes.len().min(HEAD_LEN)];
        if let Ok(packet) = Packet::parse(head, bytes.len() as u64) {
            prop_assert!(packet.len <= bytes.len() && packet.headers <= head.len());
            prop_assert!(packet.headers <= packet.len);
            let transport = packet.flow.protocol;
            if matches!(transport, TCP | UDP | ICMP) {
                prop_assert!(packet.checksum_at().unwrap() + 2 <= packet.headers);
            }
        }
    }
}
