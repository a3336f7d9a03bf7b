//! The other end of a NIC's wire.

use std::time::Duration;

/// The other end of a NIC's wire, in the hands of a test. A [`NicDriver`](super::NicDriver) is one, too.
pub trait Wire {
    /// Sends a packet to the NIC: a header of 12 bytes, which a wire without headers leaves out, and a frame. Returns whether the
    /// wire took it.
    fn send(&mut self, packet: &[u8]) -> bool;

    /// Returns the next packet from the NIC, if one comes within `limit`. A wire without headers puts one of zeros in front.
    fn receive(&mut self, limit: Duration) -> Option<Vec<u8>>;
}
