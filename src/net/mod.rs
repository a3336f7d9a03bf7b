//! virtio-net (5.1): a network card of the guest on a TAP device of the host.
//!
//! Frames move straight between the TAP device and guest memory. Only the header in front of each one is copied, and
//! checked against what was negotiated, since the host's network stack believes it.
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
mod header;
mod nic;
mod receive;
mod tap;

pub use nic::Nic;
