//! Ranges of guest memory as the kernel takes them for scatter-gather I/O: no copy through a buffer of ours.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::address::GuestAddress;
use super::guest::GuestMemory;
use crate::error::Result;

// UIO_MAXIOV: the kernel refuses longer vectors.
const MAX_VECTORS: usize = 1024;

/// Checked ranges of guest memory, in order, that the kernel may read or fill.
///
/// Holds the memory mapped for as long as it lives, so that it may travel to another thread with an I/O in flight.
pub(crate) struct IoRanges {
    vectors: Vec<libc::iovec>,
    len: u64,
    _memory: GuestMemory,
}

// SAFETY: the pointers lead into the mapping that `_memory` keeps alive, which belongs to no thread.
unsafe impl Send for IoRanges {}

impl IoRanges {
    /// Checks that every range is RAM. Empty ranges are left out.
    pub(crate) fn new(memory: &GuestMemory, ranges: impl IntoIterator<Item = (GuestAddress, u32)>) -> Result<Self> {
        let mut vectors = Vec::new();
        let mut len = 0u64;
        for (gpa, range_len) in ranges {
            if range_len == 0 {
                continue;
            }
            for slice in memory.slices(gpa, range_len as usize)? {
                let slice = slice?;
                len += slice.len() as u64;
                // The mapping lives as long as `_memory`, longer than the guard that is dropped here.
                let start = slice.ptr_guard_mut().as_ptr();
                vectors.push(libc::iovec { iov_base: start.cast(), iov_len: slice.len() });
            }
        }
        Ok(Self { vectors, len, _memory: memory.clone() })
    }

    /// All ranges together, in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills the ranges from `file` at `offset` bytes. May block as a read of the file does.
    ///
    /// # Errors
    /// What the host reports, or `UnexpectedEof` where the file ends before the ranges are full.
    pub(crate) fn fill_from(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        self.transfer(offset, io::ErrorKind::UnexpectedEof, |vectors, count, at| {
            // SAFETY: the vectors lead into mapped guest memory that `self` keeps alive, and the kernel's writes to it
            // race with nothing but the guest, through no Rust reference.
            unsafe { libc::preadv64(file.as_raw_fd(), vectors, count, at) }
        })
    }

    /// Writes the ranges to `file` at `offset` bytes. May block as a write to the file does.
    ///
    /// # Errors
    /// What the host reports, or `WriteZero` where the file takes no more.
    pub(crate) fn drain_to(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        self.transfer(offset, io::ErrorKind::WriteZero, |vectors, count, at| {
            // SAFETY: as in `fill_from`; the kernel only reads.
            unsafe { libc::pwritev64(file.as_raw_fd(), vectors, count, at) }
        })
    }

    /// Fills the ranges with one read, as a packet device wants it; says how many bytes came.
    pub(crate) fn fill_once(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: as in `fill_from`; no more vectors are counted than there are.
        retry(|| unsafe { libc::readv(fd.as_raw_fd(), self.vectors.as_ptr(), self.count()) })
    }

    /// Writes `head`, which the guest cannot change, and the ranges with one write, as a packet device wants it; says how
    /// many bytes went.
    pub(crate) fn drain_once(&self, fd: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
        let mut vectors = Vec::with_capacity(self.vectors.len() + 1);
        vectors.push(libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() });
        vectors.extend_from_slice(&self.vectors);
        let count = vectors.len().min(MAX_VECTORS) as libc::c_int;
        // SAFETY: as in `drain_to`; `head` is only read, and outlives the call.
        retry(|| unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), count) })
    }

    fn count(&self) -> libc::c_int {
        // A vector too long for one call is cut here; the caller sees a short transfer.
        self.vectors.len().min(MAX_VECTORS) as libc::c_int
    }

    fn transfer(
        &self,
        offset: u64,
        ended: io::ErrorKind,
        mut call: impl FnMut(*const libc::iovec, libc::c_int, i64) -> isize,
    ) -> io::Result<()> {
        let mut position = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // Copied only where the transfer comes in parts, which it seldom does.
        let mut rest = Cow::Borrowed(self.vectors.as_slice());
        let (mut first, mut left) = (0, self.len);
        while left > 0 {
            let vectors = rest.get(first..).unwrap_or_default();
            let count = vectors.len().min(MAX_VECTORS) as libc::c_int;
            let done = retry(|| call(vectors.as_ptr(), count, position))?;
            if done == 0 {
                return Err(ended.into());
            }
            left -= done as u64;
            position += done as i64;
            if left > 0 {
                first = advance(rest.to_mut(), first, done);
            }
        }
        Ok(())
    }
}

/// Moves past `done` bytes and says at which vector to go on.
fn advance(vectors: &mut [libc::iovec], mut first: usize, mut done: usize) -> usize {
    while let Some(vector) = vectors.get_mut(first).filter(|vector| done >= vector.iov_len) {
        done -= vector.iov_len;
        first += 1;
    }
    if let Some(vector) = vectors.get_mut(first).filter(|_| done > 0) {
        vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(done).cast();
        vector.iov_len -= done;
    }
    first
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::anonymous(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
    }

    #[test]
    fn ranges_across_regions_reach_the_file_in_order() {
        let memory = memory();
        memory.write(GuestAddress(0xffe), b"abcd").unwrap();
        memory.write(GuestAddress(0x10), b"xy").unwrap();
        let ranges = IoRanges::new(&memory, [(GuestAddress(0xffe), 4), (GuestAddress(0x10), 2)]).unwrap();
        let file = tempfile::tempfile().unwrap();
        ranges.drain_to(file.as_fd(), 3).unwrap();
        let back = GuestMemory::anonymous(&[(GuestAddress(0), 0x1000)]).unwrap();
        IoRanges::new(&back, [(GuestAddress(0), 9)]).unwrap().fill_from(file.as_fd(), 0).unwrap();
        let mut bytes = [0xaa; 10];
        back.read(GuestAddress(0), &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0abcdxy\0");
    }

    #[test]
    fn more_ranges_than_one_call_takes_reach_the_file() {
        let memory = memory();
        let bytes: Vec<u8> = (0..0x1000u32).map(|index| (index % 251) as u8).collect();
        memory.write(GuestAddress(0), &bytes).unwrap();
        let ranges = || IoRanges::new(&memory, (0..0x1000 / 2).map(|index| (GuestAddress(index * 2), 2))).unwrap();
        let file = tempfile::tempfile().unwrap();
        ranges().drain_to(file.as_fd(), 0).unwrap();
        memory.write(GuestAddress(0), &[0; 0x1000]).unwrap();
        ranges().fill_from(file.as_fd(), 0).unwrap();
        let mut back = vec![0; 0x1000];
        memory.read(GuestAddress(0), &mut back).unwrap();
        assert_eq!(back, bytes);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let memory = memory();
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let ranges = IoRanges::new(&memory, [(GuestAddress(0), 20)]).unwrap();
        assert_eq!(ranges.len(), 20);
        assert_eq!(ranges.fill_from(file.as_fd(), 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_range_outside_memory_is_refused() {
        let memory = memory();
        assert!(IoRanges::new(&memory, [(GuestAddress(0x1fff), 2)]).is_err());
        assert!(IoRanges::new(&memory, [(GuestAddress(u64::MAX), 2)]).is_err());
    }

    #[test]
    fn advance_stops_inside_a_vector() {
        let mut bytes = [0u8; 6];
        let start = bytes.as_mut_ptr();
        let mut vectors = [
            libc::iovec { iov_base: start.cast(), iov_len: 2 },
            libc::iovec { iov_base: start.wrapping_add(2).cast(), iov_len: 4 },
        ];
        assert_eq!(advance(&mut vectors, 0, 3), 1);
        assert_eq!(vectors[1].iov_base, start.wrapping_add(3).cast());
        assert_eq!(vectors[1].iov_len, 3);
        assert_eq!(advance(&mut vectors, 1, 3), 2);
    }
}
