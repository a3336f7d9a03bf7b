//! What every virtio device shares: queues and their chains, the device trait, the MMIO transport, and the I/O thread.
//!
//! Nothing here knows what a device does. A device implements [`VirtioDevice`]; [`MmioTransport`] shows it to the guest
//! and runs it on an [`IoThread`]. Section numbers are those of the virtio specification, version 1.2.
//!
//! The guest is hostile: everything read from its memory is copied once and checked before it is used, and no step here
//! waits for the guest.
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

mod cell;
mod chain;
mod device;
mod interrupt;
mod io_thread;
mod mmio;
mod queue;
mod registers;
mod ring;
pub mod spec;
mod status;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use chain::{Chain, Segment};
pub use device::{Activation, BackendEvent, BackendInterest, BackendSource, Progress, VirtioDevice};
pub use interrupt::Interrupt;
pub use io_thread::IoThread;
pub(crate) use io_thread::{Control, Registration};
pub use mmio::MmioTransport;
pub use queue::{Queue, QueueConfig};

/// Locks what stays whole even where a holder panicked: every value behind it is valid after each single write.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a read of a config space that is `config`; what lies past its end stays as it is.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}

#[cfg(test)]
mod rig_test;
