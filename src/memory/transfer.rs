//! I/O straight from and to ranges of guest memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::buffer::Buffer;
use super::ranges::{GuestRanges, IoVec, part_of};

// UIO_MAXIOV: the kernel refuses longer vectors.
pub(super) const MAX_VECTORS: usize = 1024;

/// How many vectors are cut to size at once if a transfer goes on in the middle of one.
const CUT_AT_ONCE: usize = 64;

/// How many vectors a small packet has at most, with its head.
const FEW: usize = 8;

/// A packet of so many bytes, behind a head of so many, is copied before it is sent.
const COPIED: usize = 256;
const HEAD: usize = 16;

/// What one read from a packet device brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes that were filled.
    pub(crate) len: u64,
    /// The packet was longer than the ranges, and its rest is lost.
    pub(crate) truncated: bool,
}

/// A call of the kernel that moves bytes between vectors and a position of a file.
type Transfer = unsafe extern "C" fn(RawFd, *const libc::iovec, libc::c_int, i64) -> isize;

impl GuestRanges {
    /// Fills the ranges with the bytes of a file from `at` on. Blocks like any read of the file.
    ///
    /// # Errors
    /// What the host reports, or `UnexpectedEof` if the file ends before the ranges are full. A part may be filled then.
    pub fn read_from(&self, file: impl AsFd, at: u64) -> io::Result<()> {
        self.whole().transfer_all(file.as_fd().as_raw_fd(), at, libc::preadv64, io::ErrorKind::UnexpectedEof)
    }

    /// Writes the ranges to a file from byte `at` on. Blocks like any write to the file.
    ///
    /// # Errors
    /// What the host reports, or `WriteZero` if the file takes no more. A part may be written then.
    pub fn write_to(&self, file: impl AsFd, at: u64) -> io::Result<()> {
        self.whole().transfer_all(file.as_fd().as_raw_fd(), at, libc::pwritev64, io::ErrorKind::WriteZero)
    }

    /// Fills the first `parts` of the ranges with one packet.
    pub(crate) fn receive_from(&mut self, device: impl AsFd, parts: usize) -> io::Result<Received> {
        let parts = parts.min(self.count());
        let room = self.len_of(parts);
        // Before anything of ours is among the vectors: this is a caller's code, and may panic.
        let fd = device.as_fd().as_raw_fd();
        // A packet that fits exactly is whole; one that spills into this byte is not.
        let mut spill = 0u8;
        let end = IoVec(libc::iovec { iov_base: (&raw mut spill).cast(), iov_len: 1 });
        let behind = self.set_behind(parts, Some(end));
        let vectors = self.as_iovecs();
        let count = count(vectors.get(..=parts).unwrap_or(vectors));
        // SAFETY: the vectors lead into guest memory that `self` keeps mapped, and to `spill`, which outlives the call; the
        // kernel's writes race with nothing but the guest, through no Rust reference. Why not by `readv`: see `preadv_now`.
        let result = retry(|| unsafe { libc::syscall(libc::SYS_readv, fd, vectors.as_ptr(), count) });
        self.set_behind(parts, behind);
        let len = result?;
        Ok(Received { len: len.min(room), truncated: len > room })
    }

    /// Fills the ranges from their beginning on with what a stream has now. Says how many bytes that were; none is the stream's end.
    ///
    /// # Errors
    /// What the host reports: `WouldBlock` if a stream that does not wait has nothing.
    pub(crate) fn read_stream(&mut self, stream: impl AsFd) -> io::Result<u64> {
        let fd = stream.as_fd().as_raw_fd();
        let vectors = self.as_iovecs();
        let count = count(vectors);
        // SAFETY: as in `receive_from`, but for the last vector, which is missing.
        retry(|| unsafe { libc::syscall(libc::SYS_readv, fd, vectors.as_ptr(), count) })
    }

    /// Sends `head`, which the guest cannot change, and the ranges as one packet.
    ///
    /// # Errors
    /// What the host reports.
    pub fn send_to(&self, device: impl AsFd, head: &[u8]) -> io::Result<u64> {
        let fd = device.as_fd().as_raw_fd();
        if self.len() <= COPIED as u64 && head.len() <= HEAD {
            return self.send_copy(fd, head);
        }
        match self.count() {
            0..FEW => self.send_vectors::<FEW>(fd, head),
            FEW..CUT_AT_ONCE => self.send_vectors::<CUT_AT_ONCE>(fd, head),
            _ => self.send_long(fd, head),
        }
    }

    /// Writes the ranges to a socket that is a stream, as far as it takes them, and waits for nothing. Says how many bytes it took.
    ///
    /// A peer that is gone is an error alone: no SIGPIPE, which would end a host program in C. That is why it is not `writev`; and not
    /// `sendmsg`, because no filter could see what that sends beside bytes.
    ///
    /// # Errors
    /// What the host reports about the first range that was not taken whole if nothing was taken before: `WouldBlock` if the
    /// stream is full.
    pub(crate) fn write_stream(&self, stream: &UnixStream) -> io::Result<u64> {
        let fd = stream.as_raw_fd();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let mut sent = 0_u64;
        for part in self.as_iovecs() {
            // SAFETY: the vector leads into guest memory that `self` keeps mapped, and the kernel only reads it.
            match retry(|| unsafe { libc::send(fd, part.iov_base, part.iov_len, flags) }) {
                Ok(taken) => {
                    sent = sent.saturating_add(taken);
                    if taken < part.iov_len as u64 {
                        break;
                    }
                }
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    /// A packet so short that copying it takes less time than the kernel takes for looking at vectors.
    fn send_copy(&self, fd: RawFd, head: &[u8]) -> io::Result<u64> {
        let mut bytes = [0; HEAD + COPIED];
        let (to_head, rest) = bytes.split_at_mut(head.len());
        to_head.copy_from_slice(head);
        let to = rest.get_mut(..part_of(self.len(), COPIED)).unwrap_or_default();
        self.copy_out(0, to).map_err(io::Error::other)?;
        let len = head.len().saturating_add(to.len());
        let packet = bytes.get(..len).unwrap_or_default();
        // SAFETY: the kernel reads so many bytes of ours, which outlive the call.
        retry(|| unsafe { libc::syscall(libc::SYS_write, fd, packet.as_ptr(), packet.len()) })
    }

    /// A packet in fewer than `MOST` pieces.
    fn send_vectors<const MOST: usize>(&self, fd: RawFd, head: &[u8]) -> io::Result<u64> {
        let mut vectors = [EMPTY; MOST];
        let ranges = self.as_iovecs();
        let head = libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() };
        for (vector, part) in vectors.iter_mut().zip(std::iter::once(&head).chain(ranges)) {
            *vector = *part;
        }
        let count = count(vectors.get(..=ranges.len()).unwrap_or(&vectors));
        // SAFETY: as in `receive_from`; the kernel only reads, and `head` outlives the call.
        retry(|| unsafe { libc::syscall(libc::SYS_writev, fd, vectors.as_ptr(), count) })
    }

    /// A packet in more pieces than any driver uses for one.
    fn send_long(&self, fd: RawFd, head: &[u8]) -> io::Result<u64> {
        let mut vectors = Vec::with_capacity(self.count().saturating_add(1));
        vectors.push(libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() });
        vectors.extend_from_slice(self.as_iovecs());
        // SAFETY: as in `send_vectors`.
        retry(|| unsafe { libc::writev(fd, vectors.as_ptr(), count(&vectors)) })
    }

    fn whole(&self) -> Pieces<'_> {
        Pieces { vectors: self.as_iovecs(), len: self.len() }
    }
}

impl Buffer {
    /// Fills the buffer with the bytes of a file from `at` on. Blocks like any read of the file.
    ///
    /// # Errors
    /// Those of [`GuestRanges::read_from`].
    pub fn read_from(&mut self, file: impl AsFd, at: u64) -> io::Result<()> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces(|pieces| pieces.transfer_all(fd, at, libc::preadv64, io::ErrorKind::UnexpectedEof))
    }

    /// Writes the buffer to a file from byte `at` on. Blocks like any write to the file.
    ///
    /// # Errors
    /// Those of [`GuestRanges::write_to`].
    pub fn write_to(&mut self, file: impl AsFd, at: u64) -> io::Result<()> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces(|pieces| pieces.transfer_all(fd, at, libc::pwritev64, io::ErrorKind::WriteZero))
    }

    /// As [`read_from`](Self::read_from), but never blocks, and is content with a part: says how many bytes came.
    pub(crate) fn read_from_now(&mut self, file: impl AsFd, at: u64) -> io::Result<u64> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces(|pieces| pieces.transfer(fd, 0, at, preadv_now))
    }

    /// As [`write_to`](Self::write_to), but never blocks, and is content with a part: says how many bytes went.
    pub(crate) fn write_to_now(&mut self, file: impl AsFd, at: u64) -> io::Result<u64> {
        let fd = file.as_fd().as_raw_fd();
        self.pieces(|pieces| pieces.transfer(fd, 0, at, pwritev_now))
    }

    fn pieces<R>(&mut self, call: impl FnOnce(Pieces<'_>) -> R) -> R {
        match self {
            Self::Guest(ranges) => call(ranges.whole()),
            Self::Host(buffer) => {
                let len = buffer.len();
                let one = [libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: len }];
                call(Pieces { vectors: &one, len: len as u64 })
            }
        }
    }
}

/// What a buffer consists of, while it is borrowed: guest memory that it keeps mapped, or its own bytes.
#[derive(Clone, Copy)]
struct Pieces<'a> {
    vectors: &'a [libc::iovec],
    len: u64,
}

impl Pieces<'_> {
    fn transfer_all(self, fd: RawFd, at: u64, call: Transfer, ended: io::ErrorKind) -> io::Result<()> {
        let mut done = 0;
        while done < self.len {
            match self.transfer(fd, done, at, call)? {
                0 => return Err(ended.into()),
                moved => done = done.saturating_add(moved),
            }
        }
        Ok(())
    }

    /// Moves what lies from byte `skip` of the pieces on, or the first part of that; `at` belongs to their first byte.
    fn transfer(self, fd: RawFd, skip: u64, at: u64, call: Transfer) -> io::Result<u64> {
        let position = at.checked_add(skip).and_then(|position| i64::try_from(position).ok());
        let position = position.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        if skip == 0 {
            return self.call(fd, self.vectors, position, call);
        }
        let mut few = [EMPTY; CUT_AT_ONCE];
        self.call(fd, cut(self.vectors, skip, &mut few), position, call)
    }

    /// Calls the kernel for some of the vectors.
    fn call(self, fd: RawFd, vectors: &[libc::iovec], position: i64, call: Transfer) -> io::Result<u64> {
        // SAFETY: the pieces are those of a buffer that is borrowed for the call: guest memory that it keeps mapped and that is
        // reached by no Rust reference, or bytes that it owns and that are borrowed uniquely. Each `call` takes a descriptor,
        // vectors with their number, and a position.
        retry(|| unsafe { call(fd, vectors.as_ptr(), count(vectors), position) })
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Copies to `few` what lies behind `skip` bytes, as far as it has room.
fn cut<'a>(vectors: &[libc::iovec], mut skip: u64, few: &'a mut [libc::iovec; CUT_AT_ONCE]) -> &'a [libc::iovec] {
    let mut used = 0;
    for vector in vectors {
        let skipped = part_of(skip, vector.iov_len);
        skip = skip.saturating_sub(skipped as u64);
        let left = vector.iov_len.saturating_sub(skipped);
        if left == 0 {
            continue;
        }
        let Some(place) = few.get_mut(used) else { break };
        let start = vector.iov_base.cast::<u8>().wrapping_add(skipped);
        *place = libc::iovec { iov_base: start.cast(), iov_len: left };
        used = used.saturating_add(1);
    }
    few.get(..used).unwrap_or_default()
}

/// Reads what can be had without waiting for a disk.
///
/// # Safety
/// As for `preadv`: `vectors` must lead to `count` vectors, each of memory that may be written.
unsafe extern "C" fn preadv_now(fd: RawFd, vectors: *const libc::iovec, count: libc::c_int, at: i64) -> isize {
    // SAFETY: the caller vouches for the vectors. The C library's own `preadv2` is a point at which a thread may be cancelled,
    // which costs two more calls for each read.
    let result = unsafe { libc::syscall(libc::SYS_preadv2, fd, vectors, count, at, NO_UPPER_HALF, libc::RWF_NOWAIT) };
    isize::try_from(result).unwrap_or(-1)
}

/// Writes what can be taken without waiting for a disk.
///
/// # Safety
/// As for `pwritev`: `vectors` must lead to `count` vectors, each of memory that may be read.
unsafe extern "C" fn pwritev_now(fd: RawFd, vectors: *const libc::iovec, count: libc::c_int, at: i64) -> isize {
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_pwritev2, fd, vectors, count, at, NO_UPPER_HALF, libc::RWF_NOWAIT) };
    isize::try_from(result).unwrap_or(-1)
}

/// The kernel takes a position as two words, of which a 64-bit system uses the first.
const NO_UPPER_HALF: libc::c_long = 0;

/// How many vectors the kernel is given of these.
fn count(vectors: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(vectors.len().min(MAX_VECTORS)).unwrap_or(0)
}

#[inline]
fn retry<R>(mut call: impl FnMut() -> R) -> io::Result<u64>
where
    u64: TryFrom<R>,
{
    loop {
        match u64::try_from(call()) {
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
#[path = "transfer_test.rs"]
mod tests;
