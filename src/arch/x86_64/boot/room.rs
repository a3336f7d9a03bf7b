//! The memory to load into.

use crate::arch::x86_64::layout::{HIGH_RAM_START, MMIO_GAP_START};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};

/// The RAM below the MMIO gap, which holds everything that is loaded, and the length of the initrd, which shares it
/// with the kernel.
pub(super) struct Room {
    pub(super) ram_end: u64,
    pub(super) initrd_len: u64,
}

impl Room {
    /// The room in `memory` beside an initrd of this length.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if there is no region from 0 up to 1 MiB at least.
    pub(super) fn new(memory: &GuestMemory, initrd_len: u64) -> Result<Self> {
        Ok(Self { ram_end: low_ram_end(memory)?, initrd_len })
    }

    /// The memory that a kernel needs if it ends at `kernel_end`, in words that follow the image's name and a reason.
    pub(super) fn needed(&self, kernel_end: u64) -> String {
        let initrd = match self.initrd_len {
            0 => "",
            _ => " with the initrd",
        };
        let bytes = page_end(kernel_end).saturating_add(page_end(self.initrd_len));
        format!("needs {} MiB of memory{initrd}; the guest has {} MiB", mib(bytes), mib(self.ram_end))
    }
}

fn low_ram_end(memory: &GuestMemory) -> Result<u64> {
    let first = memory.regions().next().filter(|region| region.start == GuestAddress(0));
    let end = first.map_or(0, |region| region.len.min(MMIO_GAP_START));
    if end < HIGH_RAM_START {
        let message = format!("the guest has {end} bytes of memory from gpa=0x0 on, a kernel needs 1 MiB at least");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(end)
}

/// The end of the page that holds `address`, or `address` itself if a page starts there.
pub(super) fn page_end(address: u64) -> u64 {
    address.checked_next_multiple_of(0x1000).unwrap_or(u64::MAX)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
