//! Operations of a disk as transfers of its I/O thread's ring.

use std::io;
use std::sync::Arc;

use super::medium_file::DiskFile;
use crate::block::backend::{Done, Operation};
use crate::block::tag::Tag;
use crate::event::Io;
use crate::memory::{Port, Transfer, Transferred};

/// The disk's access to the ring.
pub(super) struct RingPort {
    port: Port,
    in_flight: usize,
}

/// What came of an operation.
pub(super) enum Outcome {
    Done(Done),
    /// The ring did a part of it, or none: it has to be done by calls that wait, which find out why.
    Undone(Tag, Operation),
}

impl RingPort {
    /// Opens the file at the thread's ring.
    ///
    /// # Errors
    /// Why the file is not served by it.
    pub(super) fn open(io: &mut Io, file: &Arc<DiskFile>) -> Result<Self, String> {
        let token = io.token();
        let waker = io.waker(token);
        let port = io.ring()?.open(file, move || waker.wake()).map_err(|e| e.to_string())?;
        Ok(Self { port, in_flight: 0 })
    }

    /// Begins an operation.
    ///
    /// # Errors
    /// The operation, if it is none for the ring, or the ring has no room.
    pub(super) fn begin(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        let transfer = transfer(operation)?;
        match io.ring() {
            Ok(ring) => ring.begin(&self.port, tag.to_bits(), transfer).map_err(operation_of)?,
            Err(_) => return Err(operation_of(transfer)),
        }
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(())
    }

    /// Why the ring takes nothing any more, if it does not.
    pub(super) fn given_up(&self, io: &mut Io) -> Option<String> {
        io.ring().ok()?.given_up().map(str::to_owned)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// An operation that has ended.
    pub(super) fn take(&mut self, io: &mut Io) -> Option<Outcome> {
        if self.in_flight == 0 {
            return None;
        }
        let Transferred { tag, transfer, result } = io.ring().ok()?.take(&self.port)?;
        self.in_flight = self.in_flight.saturating_sub(1);
        Some(outcome(Tag::from_bits(tag), transfer, result))
    }
}

fn outcome(tag: Tag, transfer: Transfer, result: io::Result<u64>) -> Outcome {
    let expected = len(&transfer);
    let operation = operation_of(transfer);
    match result {
        Ok(moved) if moved == expected => Outcome::Done(Done::new(tag, operation, Ok(()))),
        Ok(_) => Outcome::Undone(tag, operation),
        Err(e) if is_passing(&e) => Outcome::Undone(tag, operation),
        Err(e) => Outcome::Done(Done::new(tag, operation, Err(e))),
    }
}

/// Whether the ring could not do it as things are, rather than the storage.
fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
        || matches!(
            error.kind(),
            io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::Unsupported
                | io::ErrorKind::OutOfMemory
        )
}

fn transfer(operation: Operation) -> Result<Transfer, Operation> {
    match operation {
        Operation::Read { at, into } => Ok(Transfer::Read { at, into }),
        Operation::Write { at, from, stable } => Ok(Transfer::Write { at, from, stable }),
        other => Err(other),
    }
}

fn operation_of(transfer: Transfer) -> Operation {
    match transfer {
        Transfer::Read { at, into } => Operation::Read { at, into },
        Transfer::Write { at, from, stable } => Operation::Write { at, from, stable },
    }
}

fn len(transfer: &Transfer) -> u64 {
    match transfer {
        Transfer::Read { into: buffer, .. } | Transfer::Write { from: buffer, .. } => buffer.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Buffer, HostBuffer};

    fn is_done_again(transfer: Transfer, error: i32) -> bool {
        let failed = Err(io::Error::from_raw_os_error(error));
        matches!(outcome(Tag::from_bits(0), transfer, failed), Outcome::Undone(..))
    }

    #[test]
    fn a_read_that_the_ring_cannot_do_now_is_done_again() {
        let read = || Transfer::Read { at: 0, into: Buffer::Host(HostBuffer::new(512)) };
        for error in [libc::ENOMEM, libc::EAGAIN, libc::EINTR, libc::EOPNOTSUPP, libc::ECANCELED] {
            assert!(is_done_again(read(), error), "{error}");
        }
        assert!(!is_done_again(read(), libc::EIO));
    }
}
