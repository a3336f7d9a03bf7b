//! Address space for guest memory, placed so that KVM can use large pages.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

/// What a large page of x86_64 and aarch64 spans.
const LARGE_PAGE: usize = 2 << 20;

/// A mapping of our own, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to no thread, and this only unmaps it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes, readable and writable, by `flags` and from the start of the file `fd`, or -1 for none.
    ///
    /// The lower 21 bits of the address are those of `gpa`, as KVM recommends (Documentation/virt/kvm/api.rst,
    /// KVM_SET_USER_MEMORY_REGION): else it maps a large page of the host to the guest by 512 small ones, with a fault for each.
    /// Kernels before 6.7 hardly ever choose such an address by themselves. If another thread takes the place meanwhile, the
    /// address is another one, which only costs time.
    pub(super) fn new(len: usize, gpa: u64, flags: libc::c_int, fd: RawFd) -> io::Result<Self> {
        Self::from_offset(len, gpa, flags, fd, 0)
    }

    /// The same, from an offset in the file on, a multiple of 4096 below 2⁶³.
    pub(super) fn from_offset(len: usize, gpa: u64, flags: libc::c_int, fd: RawFd, offset: u64) -> io::Result<Self> {
        let place = if len < LARGE_PAGE { ptr::null_mut() } else { free_place(len, gpa) };
        map(place, len, libc::PROT_READ | libc::PROT_WRITE, flags, (fd, offset))
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Advice only: where the host does not take it, the guest still runs.
    pub(super) fn advise(&self, advice: libc::c_int) {
        // SAFETY: the range is exactly this mapping, and the callers' advice changes nothing of what it holds.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) };
    }

    /// Maps a file privately over a part of this mapping, which nobody uses yet.
    pub(super) fn cover(&self, at: usize, len: usize, fd: RawFd, offset: u64) -> io::Result<()> {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        let offset = libc::off_t::try_from(offset).ok().filter(|_| inside).ok_or(io::ErrorKind::InvalidInput)?;
        let (place, access) = (self.as_ptr().wrapping_add(at), libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        // SAFETY: the range lies inside of this mapping, which nobody uses yet and which unmaps it.
        let start = unsafe { libc::mmap(place.cast(), len, access, flags, fd, offset) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Moves this mapping to where another one has its bytes from `offset` on, in the place of what that has there. For other threads that use
    /// those bytes, there is either the old mapping or the new one, never none.
    pub(super) fn replace_in(self, other: &Self, offset: usize) -> io::Result<()> {
        let end = offset.checked_add(self.len).filter(|end| *end <= other.len);
        let Some(place) = end.map(|_| other.as_ptr().wrapping_add(offset)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both ranges are mappings of this room, the first of them is used by nobody yet, and what is replaced is guest memory, of which
        // there are no references. `other` unmaps it from now on.
        let moved = unsafe { libc::mremap(self.start.as_ptr().cast(), self.len, self.len, flags, place) };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::mem::forget(self);
        Ok(())
    }

    /// Takes the pages of a mapping of shared memory off, at once, however many there are: they are this new mapping's then. The other one
    /// stays, and gets them again from the file, one by one, as they are used.
    ///
    /// # Errors
    /// Kernels before 5.13 cannot do this.
    pub(super) fn of_pages_of(other: &Self, gpa: u64) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let room = map(free_place(other.len, gpa), other.len, libc::PROT_NONE, flags, (-1, 0))?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        // SAFETY: both ranges are mappings of this room; the one that is replaced was just made, and the other one stays mapped.
        let moved = unsafe { libc::mremap(other.as_ptr().cast(), other.len, other.len, flags, room.as_ptr()) };
        if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(room) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and whoever uses it keeps this alive.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// An address with the lower bits of `gpa` where nothing is mapped, or null.
fn free_place(len: usize, gpa: u64) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let padded = len.saturating_add(LARGE_PAGE);
    // Unmapped again at once: mapping over it (MAP_FIXED) would leave it open, after a failure, whose the place is.
    let Ok(room) = map(ptr::null_mut(), padded, libc::PROT_NONE, flags, (-1, 0)) else { return ptr::null_mut() };
    let start = room.as_ptr();
    let gpa = usize::try_from(gpa).unwrap_or(0);
    start.wrapping_add(gpa.wrapping_sub(start as usize) % LARGE_PAGE).cast()
}

fn map(
    wish: *mut libc::c_void,
    len: usize,
    access: libc::c_int,
    flags: libc::c_int,
    (fd, offset): (RawFd, u64),
) -> io::Result<Mapping> {
    let offset = offset.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the address is a wish, without MAP_FIXED, so a new mapping touches nothing that is there already.
    let start = unsafe { libc::mmap(wish, len, access, flags, fd, offset) };
    match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
        Some(start) => Ok(Mapping { start, len }),
        None => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANONYMOUS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

    #[test]
    fn a_large_mapping_has_the_lower_bits_of_the_guests_address() {
        for gpa in [0, 1 << 32, 0x10_0000, 0x1000, 0x1f_f000] {
            for len in [LARGE_PAGE, 3 * LARGE_PAGE + 0x1000] {
                // Other threads map as well.
                let aligned = (0..100)
                    .map(|_| Mapping::new(len, gpa, ANONYMOUS, -1).unwrap())
                    .find(|mapping| mapping.as_ptr() as usize % LARGE_PAGE == gpa as usize % LARGE_PAGE);
                let mapping = aligned.unwrap_or_else(|| panic!("{gpa:#x} {len:#x}"));
                // SAFETY: inside of the mapping, of which there is no reference.
                unsafe {
                    mapping.as_ptr().write_volatile(1);
                    mapping.as_ptr().add(len - 1).write_volatile(1);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        assert!(Mapping::new(usize::MAX & !0xfff, 0, ANONYMOUS, -1).is_err());
        // No such descriptor.
        assert!(Mapping::new(LARGE_PAGE, 0, libc::MAP_SHARED, -1).is_err());
    }
}
