//! What the kernel is told of a transfer.

use super::buffer::Buffer;
use super::flight::Transfer;
use super::transfer::MAX_VECTORS;
use crate::sys::{Move, Uring};

/// Hands a transfer to the ring; says whether there was room.
///
/// # Safety
/// If there was, the transfer is kept until the kernel is done with it, and never freed if that is not known.
pub(super) unsafe fn push(uring: &mut Uring, place: u32, flight: u32, transfer: &Transfer) -> bool {
    let mut one = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }];
    let what = match transfer {
        Transfer::Read { at, into } => {
            let (vectors, count) = vectors(into, &mut one);
            Move::Read { vectors, count, at: *at }
        }
        Transfer::Write { at, from, stable } => {
            let (vectors, count) = vectors(from, &mut one);
            Move::Write { vectors, count, at: *at, stable: *stable }
        }
    };
    // SAFETY: several vectors are those of the transfer, which the caller keeps until the kernel is done; a single one is read
    // in this call. What they lead to is guest memory that the transfer's lease keeps mapped and that no reference reaches, or
    // bytes of a buffer that the transfer owns.
    let mut push = || unsafe { uring.push(place, flight.into(), what) };
    if push() {
        return true;
    }
    // If it is refused, there is no room.
    let _ = uring.submit();
    // SAFETY: as above.
    unsafe { uring.push(place, flight.into(), what) }
}

fn vectors(buffer: &Buffer, one: &mut [libc::iovec; 1]) -> (*const libc::iovec, u32) {
    match buffer {
        Buffer::Guest(ranges) => {
            let vectors = ranges.as_iovecs();
            // What does not fit makes this a transfer of a part.
            (vectors.as_ptr(), u32::try_from(vectors.len().min(MAX_VECTORS)).unwrap_or(0))
        }
        Buffer::Host(buffer) => {
            *one = [libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() }];
            (one.as_ptr(), 1)
        }
    }
}
