//! A driver's half of virtio: registers, rings, and the devices, with nothing that keeps a case from misusing them.

pub mod block;
pub mod device;
pub mod net;
pub mod ring;
pub mod vsock;
