use proptest::prelude::*;

use super::*;

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
