//! virtio-block (5.2): the guest's disks, each on a raw file, a block device, or a backend of your own.
//!
//! The device turns each descriptor chain into a request, without any I/O, and cuts the request into operations. A
//! [`DiskBackend`], which knows no queues, carries the operations out. When all of them are done, the device completes the
//! chain. An image is raw because its owner said so: its content is never interpreted.

mod backend;
mod changes;
mod device;
mod disk;
mod file;
mod in_use;
mod job;
mod medium;
mod metrics;
mod request;
mod tag;

pub use backend::{ByteRange, DiskBackend, DiskInfo, DiskStatus, Done, Operation};
pub use disk::{Disk, DiskHandle};
#[cfg(feature = "volume")]
pub(crate) use file::Claim;
pub use file::{FileBackend, abandoned_threads, abandoned_transfers};
pub(crate) use medium::Identity;
pub use metrics::DiskMetrics;
pub use tag::{Slab, Tag};
