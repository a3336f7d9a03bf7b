//! virtio-vsock (5.10): stream sockets between host and guest, of which the host's ends are Unix sockets.
//!
//! `packet` is the header of each packet, `connection` is what is known of one connection, and `table` keeps them. `handle` is what the
//! host program has, and `socket` the Unix socket for other programs. `device` brings packets and streams together.

mod connection;
mod device;
mod handle;
mod packet;
mod socket;
mod table;

pub(crate) use device::Vsock;
pub use handle::{VsockHandle, VsockListener};
