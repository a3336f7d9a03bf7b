//! What a ring is given to do, and what it keeps of each until the kernel is done.

use std::io;

use super::buffer::Buffer;
use crate::sys::Uring;

/// How many wishes that a transfer ends are with the kernel at once. They need room for their completions, too.
pub(super) const MOST_CANCELS: usize = 64;

/// How many transfers are in flight at the most.
pub(super) const MOST_FLIGHTS: usize = Uring::IN_FLIGHT as usize - MOST_CANCELS;

/// What is done to a file.
#[derive(Debug)]
pub(crate) enum Transfer {
    /// Fills the buffer with the file's bytes from `at` on.
    Read { at: u64, into: Buffer },
    /// Writes the buffer from byte `at` of the file on, and to its storage if it is to be `stable`.
    Write { at: u64, from: Buffer, stable: bool },
}

/// A transfer that has ended.
#[derive(Debug)]
pub(crate) struct Transferred {
    /// The number that it was begun with.
    pub(crate) tag: u64,
    /// The transfer itself, with its buffer.
    pub(crate) transfer: Transfer,
    /// How many bytes were moved. `ECANCELED` if the kernel has not begun it.
    pub(crate) result: io::Result<u64>,
}

/// A transfer in flight.
pub(super) struct Flight {
    pub(super) port: u32,
    pub(super) tag: u64,
    pub(super) transfer: Transfer,
    /// Which of all that the ring was given, in their order.
    pub(super) number: u64,
    /// The period in which it was begun.
    pub(super) period: u32,
    /// It has had its chance to be taken back.
    pub(super) is_tried: bool,
}
