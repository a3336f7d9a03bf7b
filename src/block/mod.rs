//! virtio-block (5.2): a raw file, a block device, or a backend of the user's as a disk of the guest.
//!
//! A chain becomes a request without any I/O, the request is cut into operations, a [`DiskBackend`] carries them out and
//! knows no queue, and the device puts these together and completes the chain. The image is raw because its owner said so:
//! its content is never looked at.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

mod backend;
mod changes;
mod device;
mod disk;
mod job;
mod medium;
mod request;
mod sync;
mod tag;

pub use backend::{ByteRange, DiskBackend, DiskInfo, Done, Operation};
pub use disk::{Disk, DiskHandle};
pub(crate) use medium::Identity;
pub use sync::{FileBackend, abandoned_threads};
pub use tag::{Slab, Tag};
