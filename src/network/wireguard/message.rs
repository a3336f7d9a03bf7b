//! What stands in the clear in a message, and in a packet: section 5.4 of WireGuard's paper.

use std::net::IpAddr;

pub(super) const INITIATION: u8 = 1;
pub(super) const DATA: u8 = 4;
/// What sealing adds to a packet.
pub(super) const OVERHEAD: usize = 32;

/// The type of a message.
pub(super) fn kind(message: &[u8]) -> u8 {
    message.first().copied().unwrap_or(0)
}

/// The sender's index of a handshake.
pub(super) fn sender(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

/// The receiver's index of a message of data.
pub(super) fn receiver(message: &[u8]) -> Option<u32> {
    word(message, 4)
}

/// The receiver's index of an answer to a handshake.
pub(super) fn answered(message: &[u8]) -> Option<u32> {
    word(message, 8)
}

/// The counter of a message of data.
pub(super) fn counter(message: &[u8]) -> Option<u64> {
    message.get(8..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Where a packet goes to; `None` if it is no IP packet.
pub(super) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        6 => packet.get(24..40)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
        _ => None,
    }
}
