//! The driver's side of virtio, suites, and tiny guests, for the tests of crates that build on this one. The feature
//! `test-util` turns this module on.
//!
//! | If you test | use |
//! |---|---|
//! | a backend of a disk | [`DiskConformance`], with [`SimulatedDisk`] below if it is a layer |
//! | a backend of a NIC | [`NicConformance`], and [`NicDriver`] to send and receive frames |
//! | a virtio device | [`Conformance`], and [`MmioDriver`] with [`DriverQueue`] to send requests of your own |
//! | code that takes an [`Io`](crate::event::Io) | [`IoRig`], or [`InlineIo`] for whole devices without threads |
//! | a program that runs VMs | [`TinyGuest`] as a kernel, [`memory_disk`] as a disk |
//!
//! [`DriverQueue`] writes descriptors, well-formed or not, into real guest memory. [`patterned_memory`] is filled with a
//! pattern, so that a test can see a write of one byte too many.
//!
//! ```
//! use vmcell::testing::{Buffer, DriverQueue, IoRig, RecordingInterrupt, patterned_memory};
//! use vmcell::virtio::Queue;
//! use vmcell::GuestAddress;
//!
//! let memory = patterned_memory(1 << 20);
//! let mut driver = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
//! let interrupt = RecordingInterrupt::new();
//! let mut queue = Queue::new(&driver.config(), &memory, 0, false, interrupt.clone())?;
//!
//! let head = driver.offer(&[Buffer::readable(0x8000, 5), Buffer::writable(0x9000, 8)]);
//! let chain = queue.pop(&mut IoRig::new().turn())?.unwrap();
//! assert_eq!((chain.readable_len(), chain.writable_len()), (5, 8));
//! queue.complete(chain, 3);
//! queue.notify();
//! assert_eq!(driver.take_used(), Some((head.into(), 3)));
//! assert_eq!(interrupt.used_count(), 1);
//! # Ok::<(), vmcell::Error>(())
//! ```

mod conformance;
#[cfg(test)]
#[path = "dead_storage_test.rs"]
pub(crate) mod dead_storage;
mod disk;
mod driver;
mod guest;
mod inline;
mod interrupt;
mod io;
mod mmio;
mod nic;
mod ranges;
#[doc(hidden)]
pub mod rooms;

pub use conformance::Conformance;
pub use disk::{DiskConformance, SimulatedDisk, SimulatedDiskHandle, memory_disk};
pub use driver::{Buffer, DriverQueue};
pub use guest::TinyGuest;
pub use inline::InlineIo;
pub use interrupt::RecordingInterrupt;
pub use io::IoRig;
pub use mmio::MmioDriver;
pub use nic::{NicConformance, NicDriver, Wire};
pub use ranges::guest_ranges;

use crate::memory::{GuestAddress, GuestMemory};

/// The value of each byte of guest memory before a test.
pub const PATTERN: u8 = 0xa5;

/// Makes guest memory of `len` bytes from address zero on, each of them [`PATTERN`].
///
/// # Panics
/// If the host cannot provide the memory, or if `len` is not a multiple of 4096.
pub fn patterned_memory(len: u64) -> GuestMemory {
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), len)]).expect("the host provides the memory");
    let page = [PATTERN; 4096];
    for gpa in (0..len).step_by(page.len()) {
        memory.write(GuestAddress(gpa), &page).expect("the page lies in the memory");
    }
    memory
}

/// Whether `len` bytes from `gpa` on still hold the pattern.
pub fn is_untouched(memory: &GuestMemory, gpa: u64, len: usize) -> bool {
    let mut bytes = vec![0; len];
    memory.read(GuestAddress(gpa), &mut bytes).is_ok() && bytes.iter().all(|byte| *byte == PATTERN)
}

/// Whether this host has an io_uring for us; if not, says that a test is skipped.
#[cfg(test)]
#[allow(clippy::print_stderr, reason = "says why a test was skipped")]
pub(crate) fn has_uring() -> bool {
    let made = crate::sys::Uring::new(1);
    if let Err(error) = &made {
        eprintln!("skipped: this host gives no io_uring: {error}");
    }
    made.is_ok()
}

/// A folder on a disk, not in memory: the one that the test was built into.
#[cfg(test)]
pub(crate) fn build_folder() -> std::path::PathBuf {
    let program = std::env::current_exe().expect("the test has a path");
    program.parent().expect("it lies in a folder").to_owned()
}

/// Tries until it works. For what a descriptor that was just closed held: a child process that another test starts at that
/// moment has a copy of it until it executes its program.
///
/// # Panics
/// Where it takes longer than [`MmioDriver::PATIENCE`].
#[cfg(test)]
pub(crate) fn retry<T>(mut attempt: impl FnMut() -> crate::Result<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < MmioDriver::PATIENCE, "{error:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
