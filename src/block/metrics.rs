//! What a disk counts.

use std::time::Duration;

use super::backend::Operation;
use super::job::{Work, len};
use crate::meter::Tally;

/// Counted up by the thread that owns the disk; read by any.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct DiskCounters {
    reads: Tally,
    writes: Tally,
    flushes: Tally,
    discards: Tally,
    zeroes: Tally,
    identifications: Tally,
    refused: Tally,
    read_bytes: Tally,
    written_bytes: Tally,
    discarded_bytes: Tally,
    zeroed_bytes: Tally,
    errors: Tally,
}

/// What a disk has done since its VM was built. See [`meter`](crate::meter) for what counters promise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskMetrics {
    /// How requests reach the storage; see [`DiskStatus`](super::DiskStatus).
    pub engine: String,
    /// Why that is not the engine that would have been the first choice, if it is not.
    pub fallback: Option<String>,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
    /// Requests to flush.
    pub flushes: u64,
    /// Requests to discard.
    pub discards: u64,
    /// Requests to write zeroes.
    pub zeroes: u64,
    /// Requests for the serial number.
    pub identifications: u64,
    /// Requests that were refused: they had no place for an answer, were of no kind that the disk knows, or reached behind its end.
    pub refused: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Bytes that were discarded.
    pub discarded_bytes: u64,
    /// Bytes that were zeroed without data from the driver.
    pub zeroed_bytes: u64,
    /// Requests that failed, because the storage did, or was too small by then.
    pub errors: u64,
    /// How often a request waited for the disk's [limits](super::Disk::limits), or those of its group. Each is counted once, however
    /// long it waits.
    pub limited: u64,
    /// How long they waited, those whose wait is over.
    pub limited_time: Duration,
}

impl DiskCounters {
    /// A request was taken up.
    pub(super) fn taken(&self, work: &Work) {
        let tally = match work {
            Work::Read(_) => &self.reads,
            Work::Write(_) => &self.writes,
            Work::Flush => &self.flushes,
            Work::Discard { .. } => &self.discards,
            Work::WriteZeroes { .. } => &self.zeroes,
        };
        tally.add(1);
    }

    /// A request for the serial number was answered.
    pub(super) fn identified(&self) {
        self.identifications.add(1);
    }

    pub(super) fn refused(&self) {
        self.refused.add(1);
    }

    /// An operation was carried out.
    pub(super) fn moved(&self, operation: &Operation) {
        let tally = match operation {
            Operation::Read { .. } => &self.read_bytes,
            Operation::Write { .. } => &self.written_bytes,
            Operation::Discard(_) => &self.discarded_bytes,
            Operation::WriteZeroes { .. } => &self.zeroed_bytes,
            Operation::Flush => return,
        };
        tally.add(len(operation));
    }

    /// A request failed.
    pub(super) fn failed(&self) {
        self.errors.add(1);
    }

    pub(super) fn read(&self) -> DiskMetrics {
        DiskMetrics {
            engine: String::new(),
            fallback: None,
            reads: self.reads.get(),
            writes: self.writes.get(),
            flushes: self.flushes.get(),
            discards: self.discards.get(),
            zeroes: self.zeroes.get(),
            identifications: self.identifications.get(),
            refused: self.refused.get(),
            read_bytes: self.read_bytes.get(),
            written_bytes: self.written_bytes.get(),
            discarded_bytes: self.discarded_bytes.get(),
            zeroed_bytes: self.zeroed_bytes.get(),
            errors: self.errors.get(),
            limited: 0,
            limited_time: Duration::ZERO,
        }
    }
}
