//! A request on its way: cut into operations that its backend can take, one after the other.

use std::mem::{Discriminant, discriminant};

use super::backend::{ByteRange, DiskInfo, Operation};
use super::request::{DATA_OFFSET, Ranges};
use crate::error::{Error, ErrorKind, Result};
use crate::limit::Cost;
use crate::memory::{Buffer, GuestAddress, GuestRanges, Lessor, RangeList};
use crate::virtio::{Chain, Segment};

/// What all requests of a disk have in common.
pub(super) struct Cutter {
    pub(super) info: DiskInfo,
    /// The driver does not flush, so each write is made stable by itself (5.2.5).
    pub(super) write_through: bool,
    /// Storage of buffers that were given back, to be used again.
    pub(super) lists: Vec<RangeList>,
}

pub(super) struct Job {
    chain: Chain,
    /// The queue that the chain is from.
    queue: u16,
    work: Work,
    /// Bytes of the work that are done, or of its present range.
    done: u64,
    /// What the backend was given last: which operation, and of how many bytes.
    given: Option<(Discriminant<Operation>, u64)>,
    begun: bool,
    /// The driver has gone, and nobody waits for an answer.
    given_up: bool,
}

pub(super) enum Work {
    Read(ByteRange),
    Write(ByteRange),
    Flush,
    Discard { ranges: Box<Ranges>, position: usize },
    WriteZeroes { range: ByteRange, unmap: bool },
}

/// A request with its next operation, which is to be submitted.
pub(super) struct Pending {
    pub(super) job: Job,
    pub(super) operation: Operation,
}

impl Job {
    pub(super) fn new(chain: Chain, queue: u16, work: Work) -> Self {
        Self { chain, queue, work, done: 0, given: None, begun: false, given_up: false }
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// What it counts for limits.
    pub(super) fn cost(&self) -> Cost {
        match &self.work {
            Work::Read(range) | Work::Write(range) | Work::WriteZeroes { range, .. } => Cost::new(1, range.len),
            Work::Flush => Cost::new(1, 0),
            // Each range is an operation of the storage's.
            Work::Discard { ranges, .. } => Cost::new((0..).map_while(|at| ranges.get(at)).count().max(1) as u64, 0),
        }
    }

    pub(super) fn queue(&self) -> u16 {
        self.queue
    }

    /// Whether any of it was given to the backend.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The driver has gone. The chain, and with it a lease of the guest's memory, is kept until the backend is done, so that a
    /// reset waits for that, whether or not the operation has a buffer.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up
    }

    pub(super) fn into_chain(self) -> Chain {
        self.chain
    }

    /// An operation is given to the backend.
    pub(super) fn begin(&mut self, operation: &Operation) {
        self.given = Some((discriminant(operation), len(operation)));
        self.begun = true;
    }

    /// Whether the backend has this operation of it.
    pub(super) fn was_given(&self, operation: &Operation) -> bool {
        self.given == Some((discriminant(operation), len(operation)))
    }

    /// The backend had no room for it.
    pub(super) fn refused(&mut self, was_begun: bool) {
        self.begun = was_begun;
    }

    /// How many bytes of data the driver got.
    pub(super) fn data_written(&self) -> u32 {
        match self.work {
            Work::Read(range) => u32::try_from(range.len).unwrap_or(0),
            _ => 0,
        }
    }

    /// Moves past an operation that is done.
    pub(super) fn advance(&mut self, operation: &Operation) {
        self.done = self.done.saturating_add(len(operation));
        // A flush has no length, but is done.
        if let Work::Flush = self.work {
            self.done = 1;
        }
        if let Work::Discard { ranges, position } = &mut self.work
            && ranges.get(*position).is_some_and(|range| self.done >= range.len)
        {
            *position = position.saturating_add(1);
            self.done = 0;
        }
    }

    /// Whether all data were moved.
    pub(super) fn is_moved(&self) -> bool {
        match self.work {
            Work::Read(range) | Work::Write(range) => self.done >= range.len,
            _ => false,
        }
    }

    /// The next operation; `None` if all is done.
    ///
    /// # Errors
    /// If it lies behind the end of a disk that has become smaller.
    pub(super) fn next(&mut self, cutter: &mut Cutter, lessor: &Lessor) -> Result<Option<Operation>> {
        let stable = cutter.write_through;
        self.skip_empty_ranges();
        if self.end() > cutter.info.capacity {
            return Err(Error::new(ErrorKind::Disk, "the request lies behind the end of the disk"));
        }
        Ok(match &self.work {
            Work::Read(range) => {
                let data = self.buffer(cutter, lessor, range, Side::Writable)?;
                data.map(|(at, into)| Operation::Read { at, into })
            }
            Work::Write(range) => {
                let data = self.buffer(cutter, lessor, range, Side::Readable)?;
                data.map(|(at, from)| Operation::Write { at, from, stable })
            }
            Work::Flush => (self.done == 0).then_some(Operation::Flush),
            Work::Discard { ranges, position } => {
                let range = ranges.get(*position);
                range.and_then(|range| self.rest_of(range, cutter)).map(Operation::Discard)
            }
            Work::WriteZeroes { range, unmap } => {
                let unmap = *unmap;
                self.rest_of(*range, cutter).map(|range| Operation::WriteZeroes { range, unmap, stable })
            }
        })
    }

    /// Where the work ends on the disk, or its present range.
    fn end(&self) -> u64 {
        let range = match &self.work {
            Work::Read(range) | Work::Write(range) | Work::WriteZeroes { range, .. } => Some(*range),
            Work::Discard { ranges, position } => ranges.get(*position),
            Work::Flush => None,
        };
        range.map_or(0, |range| range.at.saturating_add(range.len))
    }

    /// Empty ranges are allowed, and nothing is to be done for them.
    fn skip_empty_ranges(&mut self) {
        if let Work::Discard { ranges, position } = &mut self.work {
            while ranges.get(*position).is_some_and(|range| range.len == 0) {
                *position = position.saturating_add(1);
            }
        }
    }

    /// The next part of a range, no longer than the backend takes.
    fn rest_of(&self, range: ByteRange, cutter: &Cutter) -> Option<ByteRange> {
        let len = range.len.saturating_sub(self.done).min(cutter.info.max_range);
        (len > 0).then_some(ByteRange { at: range.at.saturating_add(self.done), len })
    }

    /// The next part of the data, no longer than the backend takes: where on the disk, and its buffer.
    fn buffer(
        &self,
        cutter: &mut Cutter,
        lessor: &Lessor,
        range: &ByteRange,
        side: Side,
    ) -> Result<Option<(u64, Buffer)>> {
        let len = range.len.saturating_sub(self.done).min(cutter.info.max_transfer);
        let (Ok(done), Ok(len)) = (u32::try_from(self.done), u32::try_from(len)) else { return Ok(None) };
        if len == 0 {
            return Ok(None);
        }
        let mut ranges = GuestRanges::new(cutter.lists.pop().unwrap_or_default(), lessor.lease());
        match side {
            Side::Writable => ranges.extend(pairs(self.chain.writable_range(done, len)))?,
            Side::Readable => {
                ranges.extend(pairs(self.chain.readable_range(done.saturating_add(DATA_OFFSET), len)))?;
            }
        }
        Ok(Some((range.at.saturating_add(self.done), Buffer::Guest(ranges))))
    }
}

/// Which bytes of a chain the data are.
enum Side {
    Readable,
    Writable,
}

/// How many bytes of its request an operation covers.
pub(super) fn len(operation: &Operation) -> u64 {
    match operation {
        Operation::Read { into: buffer, .. } | Operation::Write { from: buffer, .. } => buffer.len(),
        Operation::Flush => 0,
        Operation::Discard(range) | Operation::WriteZeroes { range, .. } => range.len,
    }
}

fn pairs(segments: impl Iterator<Item = Segment>) -> impl Iterator<Item = (GuestAddress, u32)> {
    segments.map(|segment| (segment.gpa, segment.len))
}
