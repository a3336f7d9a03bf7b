//! A part of guest RAM that is looked up once, and then read and written all the time: a queue's rings.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use super::address::GuestAddress;
use super::guest::GuestMemory;
use crate::error::Result;

/// A contiguous part of the guest's RAM. It keeps the memory mapped.
///
/// The guest may change it at any time, so numbers are copied in and out, and never referenced. All are little-endian. Each access
/// is checked against the end, and against the alignment of what it accesses.
pub(crate) struct GuestArea {
    start: NonNull<u8>,
    len: usize,
    _memory: GuestMemory,
}

// SAFETY: the pointer leads into guest memory, which belongs to no thread and stays mapped for as long as the area lives.
unsafe impl Send for GuestArea {}

impl GuestArea {
    /// Looks up `len` bytes from `gpa` on.
    ///
    /// # Errors
    /// [`ErrorKind::GuestAddress`](crate::ErrorKind::GuestAddress) if they do not lie inside one region of RAM.
    pub(crate) fn new(memory: &GuestMemory, gpa: GuestAddress, len: usize) -> Result<Self> {
        let start = memory.host_range(gpa, len)?;
        Ok(Self { start, len, _memory: memory.clone() })
    }

    pub(crate) fn load_u16(&self, offset: u64, order: Ordering) -> Option<u16> {
        Some(u16::from_le(self.atomic_u16(offset)?.load(order)))
    }

    pub(crate) fn store_u16(&self, offset: u64, value: u16, order: Ordering) -> Option<()> {
        self.atomic_u16(offset)?.store(value.to_le(), order);
        Some(())
    }

    pub(crate) fn read_u64(&self, offset: u64) -> Option<u64> {
        let place = self.place::<u64>(offset)?;
        // SAFETY: the place is inside the area, which is mapped, and aligned.
        Some(u64::from_le(unsafe { place.read_volatile() }))
    }

    pub(crate) fn write_u32(&self, offset: u64, value: u32) -> Option<()> {
        let place = self.place::<u32>(offset)?;
        // SAFETY: as in `read_u64`.
        unsafe { place.write_volatile(value.to_le()) };
        Some(())
    }

    fn atomic_u16(&self, offset: u64) -> Option<&AtomicU16> {
        // In a model, the driver may do something before each look at the rings.
        #[cfg(shuttle)]
        crate::sys::sync::atomic::fence(Ordering::SeqCst);
        let place = self.place::<AtomicU16>(offset)?;
        // SAFETY: as in `read_u64`; an atomic may be shared with the guest, which is no more than another thread to it.
        Some(unsafe { place.as_ref() })
    }

    fn place<T>(&self, offset: u64) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        if !fits {
            return None;
        }
        // SAFETY: the offset is inside the area.
        let place = unsafe { self.start.add(offset) }.cast::<T>();
        place.is_aligned().then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_ends_where_it_ends_and_takes_nothing_crooked() {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap();
        let area = GuestArea::new(&memory, GuestAddress(0xff0), 16).unwrap();
        area.write_u32(12, 0x0403_0201).unwrap();
        let mut bytes = [0; 4];
        memory.read(GuestAddress(0xffc), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4]);
        area.store_u16(8, 0x0605, Ordering::Release).unwrap();
        assert_eq!(area.read_u64(8), Some(0x0403_0201_0000_0605));
        assert_eq!(area.load_u16(14, Ordering::Acquire), Some(0x0403));
        assert_eq!((area.load_u16(16, Ordering::Relaxed), area.load_u16(15, Ordering::Relaxed)), (None, None));
        assert_eq!((area.read_u64(9), area.read_u64(4), area.read_u64(u64::MAX)), (None, None, None));
        assert_eq!((area.write_u32(13, 0), area.write_u32(16, 0)), (None, None));
        for (gpa, len) in [(0xff0, 17), (0x2000, 1), (0x1ff0, 17), (u64::MAX, 2)] {
            assert!(GuestArea::new(&memory, GuestAddress(gpa), len).is_err(), "{gpa:#x} {len}");
        }
    }
}
