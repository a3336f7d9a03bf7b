//! The other end of a NIC's wire.

use std::time::Duration;

/// What a NIC is connected to: the other end of its wire, in the hands of a test. A
/// [`NicDriver`](super::NicDriver) is one, too.
pub trait Wire {
    /// Sends a packet to the NIC: a header of 12 bytes, which a wire without headers leaves out, and a frame. Says whether the
    /// wire took it.
    fn send(&mut self, packet: &[u8]) -> bool;

    /// The next packet that comes from the NIC, if one comes within `limit`. A wire without headers gives one of zeros.
    fn receive(&mut self, limit: Duration) -> Option<Vec<u8>>;
}
