//! What a layer does with operations, whatever its map says.

use std::io;

use crate::block::{Done, Operation, Tag};
use crate::memory::{Buffer, HostBuffer};

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The same operation elsewhere.
pub(super) fn moved(operation: Operation, at: u64) -> Operation {
    match operation {
        Operation::Read { into, .. } => Operation::Read { at, into },
        Operation::Write { from, stable, .. } => Operation::Write { at, from, stable },
        other => other,
    }
}

pub(super) fn host_buffer(operation: Operation) -> Option<HostBuffer> {
    match operation {
        Operation::Read { into: Buffer::Host(buffer), .. } | Operation::Write { from: Buffer::Host(buffer), .. } => {
            Some(buffer)
        }
        _ => None,
    }
}

pub(super) fn fill_with_zeroes(operation: &mut Operation, from: u64, len: u64) -> io::Result<()> {
    let Operation::Read { into, .. } = operation else { return Ok(()) };
    let mut done = 0;
    while done < len {
        let some = usize::try_from(len.saturating_sub(done)).unwrap_or(usize::MAX).min(ZEROES.len());
        let zeroes = ZEROES.get(..some).unwrap_or_default();
        into.copy_in(from.saturating_add(done), zeroes).map_err(io::Error::other)?;
        done = done.saturating_add(some as u64);
    }
    Ok(())
}

/// The failure of one operation is that of all that waited for it.
pub(super) fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// A rule was broken below. Nobody above knows this tag, so the disk will say so.
pub(super) fn unknown(below: Operation, result: io::Result<()>) -> Done {
    Done::new(Tag::from_bits(u64::MAX), below, result)
}
