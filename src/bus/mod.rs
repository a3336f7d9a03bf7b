//! An ordered map from address ranges to devices: it finds the device that a guest's access belongs to.
//!
//! One bus serves memory-mapped I/O, another one port I/O. A bus is filled while the VM is built and never changes
//! while it runs, so vCPU threads look devices up without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// A device that the guest reaches by its address.
///
/// vCPU threads call it, several at once, so it locks inside. It must not block for long, because a vCPU that waits in
/// a device cannot be stopped. `offset` counts from the start of the device's range. The access lies inside the range,
/// but its length may be anything from 1 to 8 bytes, aligned or not: the guest chooses it.
pub trait BusDevice: Send + Sync {
    /// Fills `data` with the bytes that the guest reads; it is zeroed before.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes the bytes that the guest writes.
    fn write(&self, offset: u64, data: &[u8]);
}

/// An ordered range map; see the [module](self) for its use.
#[derive(Default)]
pub struct Bus {
    devices: BTreeMap<u64, Entry>,
}

struct Entry {
    last: u64,
    device: Arc<dyn BusDevice>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device at `len` bytes (or ports) from `start` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the range is empty, wraps, or overlaps another device's.
    pub fn insert(&mut self, start: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<()> {
        let refused = |why| {
            let message = format!("a device at {start:#x} of {len:#x} bytes {why}");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        };
        let Some(last) = len.checked_sub(1).and_then(|rest| start.checked_add(rest)) else {
            return refused("has an empty range or one that wraps");
        };
        if self.devices.range(..=last).next_back().is_some_and(|(_, entry)| entry.last >= start) {
            return refused("overlaps another device");
        }
        self.devices.insert(start, Entry { last, device });
        Ok(())
    }

    /// Dispatches a read, and returns whether a device was there. `data` is zeroed first, so bytes that no device fills
    /// read as zero.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0);
        self.find(address, data.len()).map(|(device, offset)| device.read(offset, data)).is_some()
    }

    /// Dispatches a write, and returns whether a device was there.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        self.find(address, data.len()).map(|(device, offset)| device.write(offset, data)).is_some()
    }

    fn find(&self, address: u64, len: usize) -> Option<(&dyn BusDevice, u64)> {
        let (start, entry) = self.devices.range(..=address).next_back()?;
        let last = address.checked_add(u64::try_from(len).ok()?.checked_sub(1)?)?;
        (last <= entry.last).then_some((entry.device.as_ref(), address.checked_sub(*start)?))
    }
}

#[cfg(test)]
#[path = "properties_test.rs"]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl BusDevice for Echo {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(offset as u8);
        }

        fn write(&self, _offset: u64, _data: &[u8]) {}
    }

    fn bus() -> Bus {
        let mut bus = Bus::new();
        bus.insert(0x100, 0x10, Arc::new(Echo)).unwrap();
        bus
    }

    #[test]
    fn an_access_reaches_the_device_at_its_offset() {
        let mut data = [0xff; 2];
        assert!(bus().read(0x10e, &mut data));
        assert_eq!(data, [0xe, 0xe]);
    }

    #[test]
    fn an_access_that_leaves_the_range_reaches_nobody_and_reads_zero() {
        for address in [0xff, 0x10f, 0x110, u64::MAX] {
            let mut data = [0xff; 2];
            assert!(!bus().read(address, &mut data), "{address:#x}");
            assert_eq!(data, [0, 0]);
            assert!(!bus().write(address, &[1, 2]), "{address:#x}");
        }
        assert!(!bus().write(0x100, &[]));
    }

    #[test]
    fn ranges_that_overlap_or_wrap_or_are_empty_are_refused() {
        for (start, len) in
            [(0x100, 0x10), (0xf1, 0x10), (0x10f, 1), (0, 0x1000), (0x105, 2), (0x200, 0), (u64::MAX, 2)]
        {
            assert!(bus().insert(start, len, Arc::new(Echo)).is_err(), "{start:#x} {len:#x}");
        }
        assert!(bus().insert(0xf0, 0x10, Arc::new(Echo)).is_ok());
        assert!(bus().insert(0x110, 1, Arc::new(Echo)).is_ok());
        assert!(bus().insert(u64::MAX, 1, Arc::new(Echo)).is_ok());
    }
}
