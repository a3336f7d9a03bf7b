//! virtio-net (5.1): the guest's network cards (NICs), each on a TAP device of the host or on a backend of your own.
//!
//! Frames move straight between the TAP device and guest memory. Only the header in front of each frame is copied, and checked
//! against what was negotiated, because the host's network stack believes it. *Offloads* are the work on a frame, such as
//! its checksum, that a sender may leave to the receiver.

mod backend;
mod control;
mod device;
mod feature;
mod handle;
mod header;
mod lend;
mod metrics;
mod nic;
mod offloads;
mod receive;
mod tap;
mod transmit;

pub use backend::{Need, NicBackend, NicInfo};
pub use handle::NicHandle;
pub use header::VnetHeader;
pub use lend::{RxBuffer, RxReturn};
pub use metrics::NicMetrics;
pub use nic::Nic;
pub use offloads::Offloads;
pub use receive::{Delivery, RxBatch};
pub use transmit::{TxBatch, TxFrame};
