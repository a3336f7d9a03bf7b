//! From a chain to a request (5.2.6): no I/O, every number checked, guest data copied once.

use super::backend::{ByteRange, DiskInfo};
use crate::virtio::Chain;

/// A sector is always 512 bytes, whatever the block size (5.2.4).
pub(super) const SECTOR: u64 = 512;
/// Type, reserved, sector.
const HEADER_LEN: u32 = 16;
/// Sector, count, flags.
const RANGE_LEN: u32 = 16;

/// The most sectors of one range to discard: 1 GiB.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// The most ranges of one discard.
pub(super) const MAX_DISCARD_RANGES: u32 = 32;
const MAX_RANGES: usize = MAX_DISCARD_RANGES as usize;
/// The most sectors to zero at once: 64 MiB, since they may have to be written.
pub(super) const MAX_ZEROES_SECTORS: u32 = 1 << 17;
/// The most ranges to zero at once.
pub(super) const MAX_ZEROES_RANGES: u32 = 1;
/// What the serial number takes in the buffer of a request for it.
pub(super) const SERIAL_LEN: u32 = 20;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Flag of a range to zero: its storage may be given back.
const FLAG_UNMAP: u32 = 1;

/// The last byte that the device writes (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What the driver asks for. Ranges lie inside the capacity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Into the writable bytes from the first on.
    Read(ByteRange),
    /// From the readable bytes behind the header.
    Write(ByteRange),
    Flush,
    /// The serial number, into this many writable bytes.
    Serial(u32),
    Discard(Box<Ranges>),
    WriteZeroes {
        range: ByteRange,
        unmap: bool,
    },
}

/// Some ranges of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    ranges: [ByteRange; MAX_RANGES],
    count: usize,
}

impl Ranges {
    /// The range at a position, if there are so many.
    pub(super) fn get(&self, position: usize) -> Option<ByteRange> {
        self.ranges.get(..self.count)?.get(position).copied()
    }

    fn push(&mut self, range: ByteRange) {
        if let Some(place) = self.ranges.get_mut(self.count) {
            *place = range;
            self.count = self.count.saturating_add(1);
        }
    }
}

/// Why a chain is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is answered by this status.
    Status(Status),
    /// It has no room for a status.
    NoStatus,
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The disk's size in sectors.
    pub(super) capacity: u64,
    /// What ranges are aligned to, in sectors.
    pub(super) block: u64,
    pub(super) read_only: bool,
    pub(super) discard: bool,
    pub(super) write_zeroes: bool,
}

impl Limits {
    pub(super) fn new(info: &DiskInfo, read_only: bool) -> Self {
        let sectors = |bytes: u64| bytes.checked_div(SECTOR).unwrap_or(0);
        Self {
            capacity: sectors(info.capacity),
            block: sectors(info.block_size.into()).max(1),
            read_only,
            discard: info.discard,
            write_zeroes: info.write_zeroes,
        }
    }
}

/// Where the data of a write begins among the readable bytes.
pub(super) const DATA_OFFSET: u32 = HEADER_LEN;

/// Reads a request out of a chain, however its bytes are spread over descriptors (2.7.4.2).
pub(super) fn parse(chain: &Chain, limits: Limits) -> Result<Request, Refusal> {
    let data_in = chain.writable_len().checked_sub(1).ok_or(Refusal::NoStatus)?;
    let mut header = [0; HEADER_LEN as usize];
    chain.read(0, &mut header).map_err(|_| IO_ERROR)?;
    let [kind, _, low, high] = words(header);
    let sector = u64::from(high) << 32 | u64::from(low);
    let data_out = chain.readable_len().saturating_sub(HEADER_LEN);
    match kind {
        TYPE_IN => Ok(Request::Read(limits.data_range(sector, data_in)?)),
        TYPE_OUT if limits.read_only => Err(IO_ERROR),
        TYPE_OUT => Ok(Request::Write(limits.data_range(sector, data_out)?)),
        TYPE_FLUSH => Ok(Request::Flush),
        TYPE_GET_ID => Ok(Request::Serial(data_in.min(SERIAL_LEN))),
        TYPE_DISCARD | TYPE_WRITE_ZEROES if limits.read_only => Err(IO_ERROR),
        TYPE_DISCARD if limits.discard => parse_discard(chain, data_out, limits),
        TYPE_WRITE_ZEROES if limits.write_zeroes => parse_zeroes(chain, data_out, limits),
        _ => Err(UNSUPPORTED),
    }
}

const IO_ERROR: Refusal = Refusal::Status(Status::IoError);
const UNSUPPORTED: Refusal = Refusal::Status(Status::Unsupported);

fn parse_discard(chain: &Chain, data: u32, limits: Limits) -> Result<Request, Refusal> {
    let count = range_count(data, MAX_DISCARD_RANGES)?;
    let range = |index| {
        let (sector, count, flags) = read_range(chain, index)?;
        // Unmapping is what discard does anyway; the flag is not allowed here (5.2.6.2).
        if flags != 0 { Err(UNSUPPORTED) } else { limits.range(sector, count, MAX_DISCARD_SECTORS) }
    };
    let mut ranges = Ranges::default();
    for index in 0..count {
        ranges.push(range(index)?);
    }
    Ok(Request::Discard(Box::new(ranges)))
}

fn parse_zeroes(chain: &Chain, data: u32, limits: Limits) -> Result<Request, Refusal> {
    range_count(data, MAX_ZEROES_RANGES)?;
    let (sector, count, flags) = read_range(chain, 0)?;
    if flags & !FLAG_UNMAP != 0 {
        return Err(UNSUPPORTED);
    }
    let range = limits.range(sector, count, MAX_ZEROES_SECTORS)?;
    Ok(Request::WriteZeroes { range, unmap: flags & FLAG_UNMAP != 0 })
}

fn range_count(data: u32, max: u32) -> Result<u32, Refusal> {
    let count = data.checked_div(RANGE_LEN).filter(|count| data.is_multiple_of(RANGE_LEN) && (1..=max).contains(count));
    count.ok_or(IO_ERROR)
}

fn read_range(chain: &Chain, index: u32) -> Result<(u64, u32, u32), Refusal> {
    let offset = index.saturating_mul(RANGE_LEN).saturating_add(DATA_OFFSET);
    let mut bytes = [0; RANGE_LEN as usize];
    chain.read(offset, &mut bytes).map_err(|_| IO_ERROR)?;
    let [low, high, count, flags] = words(bytes);
    Ok((u64::from(high) << 32 | u64::from(low), count, flags))
}

impl Limits {
    fn data_range(self, sector: u64, len: u32) -> Result<ByteRange, Refusal> {
        let len = u64::from(len);
        let sectors = len.checked_div(SECTOR).filter(|_| len.is_multiple_of(SECTOR)).ok_or(IO_ERROR)?;
        self.inside(sector, sectors)
    }

    fn range(self, sector: u64, count: u32, max: u32) -> Result<ByteRange, Refusal> {
        if count > max { Err(IO_ERROR) } else { self.inside(sector, count.into()) }
    }

    fn inside(self, sector: u64, count: u64) -> Result<ByteRange, Refusal> {
        sector.checked_add(count).filter(|end| *end <= self.capacity).ok_or(IO_ERROR)?;
        if !sector.is_multiple_of(self.block) || !count.is_multiple_of(self.block) {
            return Err(IO_ERROR);
        }
        let at = sector.checked_mul(SECTOR).ok_or(IO_ERROR)?;
        let len = count.checked_mul(SECTOR).ok_or(IO_ERROR)?;
        Ok(ByteRange { at, len })
    }
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| {
        let part = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
        u32::from_le_bytes(part.unwrap_or_default())
    };
    [word(0), word(4), word(8), word(12)]
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
