//! virtio-block (5.2): a raw file or block device of the host as a disk of the guest.
//!
//! A chain becomes a [`Request`](request::Request) without any I/O; a [`Backend`](backend::Backend) carries it out and
//! knows no queue; the device puts the two together and completes the chain. The image is raw because its owner said so:
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
mod device;
mod disk;
mod file;
mod request;

pub use disk::Disk;
pub(crate) use disk::Identity;
