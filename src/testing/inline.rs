//! Devices without a thread: the caller gives them their turns, one by one.

use crate::event::IoThread;

/// An I/O thread that is no thread: the devices that are given to it have their turns when the caller says so, and a turn
/// ends by its bytes, not by the clock. So what a test does is the same each time.
///
/// A register access that waits for the device serves it meanwhile; one that would wait forever panics. Devices that have
/// threads of their own, such as a disk on a file, do not belong here.
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
    /// One without a device.
    ///
    /// # Panics
    /// If the host gives no descriptor.
    pub fn new() -> Self {
        Self { io_thread: IoThread::inline().expect("the host gives a descriptor") }
    }

    /// What a transport takes for its I/O thread.
    pub fn io_thread(&self) -> &IoThread {
        &self.io_thread
    }

    /// Gives each device that has something to do one turn; says how many had.
    pub fn round(&self) -> usize {
        self.io_thread.serve_once()
    }

    /// Does rounds until there is nothing to do; says how many there were, or `None` if there were more than `limit`.
    pub fn settle(&self, limit: usize) -> Option<usize> {
        (0..=limit).find(|_| self.round() == 0)
    }
}

impl Default for InlineIo {
    fn default() -> Self {
        Self::new()
    }
}
