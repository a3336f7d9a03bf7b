//! Devices without an I/O thread: the caller gives them their turns, one by one.

use crate::event::IoThread;

/// Takes the place of an I/O thread: the devices that are given to it have their turns when the caller says so, and a turn ends
/// by its bytes, not by the clock. So a test does the same each time.
///
/// A register access that waits for the device serves the device meanwhile. One that would wait forever panics. A device with
/// threads of its own, such as a disk on a file that has to wait, does not belong here.
///
/// ```
/// use vmcell::testing::{InlineIo, MmioDriver, memory_disk, patterned_memory};
/// use vmcell::virtio::MmioTransport;
/// use vmcell::Disk;
///
/// let io = InlineIo::new();
/// let device = Disk::from_file(memory_disk(4096))?.into_device()?;
/// let driver = MmioDriver::new(MmioTransport::new(device, patterned_memory(1 << 20), io.io_thread())?);
/// assert!(driver.negotiate(driver.offered()));
/// assert!(io.settle(10).is_some());
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct InlineIo {
    io_thread: IoThread,
}

impl InlineIo {
    /// Makes one without a device.
    ///
    /// # Panics
    /// If the host gives no descriptor.
    pub fn new() -> Self {
        Self { io_thread: IoThread::inline().expect("the host gives a descriptor") }
    }

    /// Returns what a transport takes as its I/O thread.
    pub fn io_thread(&self) -> &IoThread {
        &self.io_thread
    }

    /// Gives one turn to each device that has something to do, and returns how many there were.
    pub fn round(&self) -> usize {
        self.io_thread.serve_once()
    }

    /// Does rounds until there is nothing left to do. Returns how many there were, or `None` if there were more than `limit`.
    pub fn settle(&self, limit: usize) -> Option<usize> {
        (0..=limit).find(|_| self.round() == 0)
    }
}

impl Default for InlineIo {
    fn default() -> Self {
        Self::new()
    }
}
