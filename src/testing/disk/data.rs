//! Buffers of all kinds, what lies in them, and how to tell one operation from another.

use crate::block::{ByteRange, Operation};
use crate::memory::{Buffer, GuestAddress, GuestMemory, GuestRanges, HostBuffer, Lessor, RangeList};
use crate::testing::{PATTERN, is_untouched};

const MEMORY: u64 = 16 << 20;
/// What lies between two parts of a buffer, and shows a write of one byte too many.
const GAP: usize = 16;

/// A guest's memory, out of which buffers are cut.
pub(super) struct Arena {
    memory: GuestMemory,
    lessor: Lessor,
    next: u64,
    gaps: Vec<u64>,
}

impl Arena {
    pub(super) fn new() -> Self {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), MEMORY)]).expect("the host provides the memory");
        Self { lessor: Lessor::new(memory.clone()), memory, next: 0, gaps: Vec::new() }
    }

    /// A buffer in `parts` parts of the guest's memory, none of them empty.
    pub(super) fn guest(&mut self, len: u64, parts: u64) -> Buffer {
        if self.leases() == 0 {
            (self.next, self.gaps) = (0, Vec::new());
        }
        let mut ranges = GuestRanges::new(RangeList::default(), self.lessor.lease());
        // Most parts have one byte, so that no part but the last ends where a block does.
        for part in 0..parts {
            let len = if part + 1 == parts { len - part } else { 1 };
            let range = (GuestAddress(self.next), u32::try_from(len).expect("a buffer is small"));
            ranges.extend([range]).expect("the buffers of a test fit in its memory");
            self.gaps.push(self.next + len);
            self.memory.write(GuestAddress(self.next + len), &[PATTERN; GAP]).expect("it lies in the memory");
            self.next += len + GAP as u64;
        }
        Buffer::Guest(ranges)
    }

    /// Says so if a byte beside a buffer was written.
    pub(super) fn check_gaps(&self) -> Result<(), String> {
        match self.gaps.iter().find(|gap| !is_untouched(&self.memory, **gap, GAP)) {
            Some(gap) => Err(format!("the guest's memory was written at {gap:#x}, behind the end of a buffer")),
            None => Ok(()),
        }
    }

    /// How many buffers of the guest are not given back yet.
    pub(super) fn leases(&self) -> usize {
        self.lessor.count()
    }
}

/// A buffer of the host.
pub(super) fn host(len: u64) -> Buffer {
    Buffer::Host(HostBuffer::new(usize::try_from(len).expect("a buffer is small")))
}

/// Bytes that look like no other place and no other seed.
pub(super) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; usize::try_from(len).expect("a buffer is small")];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}

pub(super) fn fill(mut buffer: Buffer, bytes: &[u8]) -> Buffer {
    buffer.copy_in(0, bytes).expect("the buffer is as long as the bytes");
    buffer
}

pub(super) fn bytes(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![PATTERN; usize::try_from(buffer.len()).expect("a buffer is small")];
    buffer.copy_out(0, &mut bytes).expect("the buffer is as long as the bytes");
    bytes
}

/// What two operations have in common if they are the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Print {
    kind: &'static str,
    range: ByteRange,
    /// For a write, whether it must be stable; for zeroes, whether that and whether storage is given back.
    flags: (bool, bool),
    /// Where its buffer is, part for part.
    parts: Vec<(usize, usize)>,
}

impl Print {
    pub(super) fn of(operation: &Operation) -> Self {
        let (kind, range, flags, buffer) = match operation {
            Operation::Read { at, into } => ("read", span(*at, into), (false, false), Some(into)),
            Operation::Write { at, from, stable } => ("write", span(*at, from), (*stable, false), Some(from)),
            Operation::Flush => ("flush", ByteRange::default(), (false, false), None),
            Operation::Discard(range) => ("discard", *range, (false, false), None),
            Operation::WriteZeroes { range, unmap, stable } => ("zeroes", *range, (*stable, *unmap), None),
        };
        Self { kind, range, flags, parts: buffer.map(parts).unwrap_or_default() }
    }
}

impl std::fmt::Display for Print {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, range: ByteRange { at, len }, .. } = self;
        write!(f, "{kind} of {len} bytes at {at}, in {} parts", self.parts.len())
    }
}

fn span(at: u64, buffer: &Buffer) -> ByteRange {
    ByteRange { at, len: buffer.len() }
}

fn parts(buffer: &Buffer) -> Vec<(usize, usize)> {
    match buffer {
        Buffer::Guest(ranges) => ranges.as_iovecs().iter().map(|part| (part.iov_base.addr(), part.iov_len)).collect(),
        Buffer::Host(buffer) => vec![(buffer.as_ptr().addr(), buffer.len())],
    }
}
