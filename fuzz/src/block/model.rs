//! What a disk should make of a request (5.2.6), and requests to ask it with.

use std::ops::Range;

use crate::disk::content;
use crate::input::Input;

const SECTOR: u64 = 512;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// Limits that the config space tells.
const MOST_DISCARD_RANGES: u64 = 32;
const MOST_DISCARD_SECTORS: u64 = 1 << 21;
const MOST_ZEROES_SECTORS: u64 = 1 << 17;
const SERIAL_LEN: u64 = 20;

/// The kinds that are asked for.
const KINDS: [u32; 8] = [0, 1, 4, 8, 11, 13, 2, 0xffff_ffff];

/// What a request is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub read_only: bool,
    /// In sectors.
    pub block: u64,
    /// In sectors.
    pub capacity: u64,
}

/// How a request should be answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u8,
    /// What the device says that it wrote, if all goes well.
    pub written: u64,
    /// The part of the disk that is read.
    pub reads: Option<Range<u64>>,
    /// The parts of the disk that are changed.
    pub changes: Vec<Range<u64>>,
    pub flushes: bool,
}

impl Answer {
    fn refused(status: u8, writable: u64) -> Self {
        // A status that is the only byte is the first one, too.
        Self { status, written: u64::from(writable == 1), ..Self::default() }
    }
}

impl Rules {
    /// The answer to a request of these readable bytes, with so many writable ones.
    pub fn answer(self, readable: &[u8], writable: u64) -> Answer {
        let Some(data_in) = writable.checked_sub(1) else { return Answer::default() };
        match self.carry_out(readable, data_in) {
            Ok(answer) => answer,
            Err(status) => Answer::refused(status, writable),
        }
    }

    fn carry_out(self, readable: &[u8], data_in: u64) -> Result<Answer, u8> {
        let header = readable.get(..16).ok_or(IO_ERROR)?;
        let data = &readable[16..];
        let (kind, sector) = (word(header, 0), long(header, 8));
        let changing = matches!(kind, 1 | 11 | 13);
        if changing && self.read_only {
            return Err(IO_ERROR);
        }
        // A status right behind the first byte counts as written, too.
        let done = Answer { written: u64::from(data_in == 0), ..Answer::default() };
        match kind {
            0 => {
                let reads = self.data(sector, data_in)?;
                Ok(Answer { written: data_in + 1, reads: Some(reads), ..done })
            }
            1 => Ok(Answer { changes: vec![self.data(sector, data.len() as u64)?], ..done }),
            4 => Ok(Answer { flushes: true, ..done }),
            8 => {
                let told = data_in.min(SERIAL_LEN);
                Ok(Answer { written: told + u64::from(told == data_in), ..done })
            }
            11 => Ok(Answer { changes: self.discard(data)?, ..done }),
            13 => Ok(Answer { changes: self.zeroes(data)?, ..done }),
            _ => Err(UNSUPPORTED),
        }
    }

    fn data(self, sector: u64, len: u64) -> Result<Range<u64>, u8> {
        if len.is_multiple_of(SECTOR) { self.range(sector, len / SECTOR) } else { Err(IO_ERROR) }
    }

    fn range(self, sector: u64, count: u64) -> Result<Range<u64>, u8> {
        let end = sector.checked_add(count).filter(|end| *end <= self.capacity).ok_or(IO_ERROR)?;
        let aligned = sector.is_multiple_of(self.block) && count.is_multiple_of(self.block);
        if aligned { Ok(sector * SECTOR..end * SECTOR) } else { Err(IO_ERROR) }
    }

    fn discard(self, data: &[u8]) -> Result<Vec<Range<u64>>, u8> {
        let count = data.len() as u64 / 16;
        if !data.len().is_multiple_of(16) || count == 0 || count > MOST_DISCARD_RANGES {
            return Err(IO_ERROR);
        }
        let range = |part: &[u8]| {
            let (sector, count) = (long(part, 0), u64::from(word(part, 8)));
            match word(part, 12) {
                0 if count <= MOST_DISCARD_SECTORS => self.range(sector, count),
                0 => Err(IO_ERROR),
                _ => Err(UNSUPPORTED),
            }
        };
        data.chunks(16).map(range).collect()
    }

    fn zeroes(self, data: &[u8]) -> Result<Vec<Range<u64>>, u8> {
        if data.len() != 16 {
            return Err(IO_ERROR);
        }
        let (sector, count) = (long(data, 0), u64::from(word(data, 8)));
        match word(data, 12) {
            0 | 1 if count <= MOST_ZEROES_SECTORS => Ok(vec![self.range(sector, count)?]),
            0 | 1 => Err(IO_ERROR),
            _ => Err(UNSUPPORTED),
        }
    }
}

/// The readable bytes of a request, and its kind: a header, mostly, and what its kind has behind it.
pub fn readable_bytes(input: &mut Input, rules: Rules) -> (u32, Vec<u8>) {
    let choice = usize::from(input.byte());
    let kind = if choice < 240 { KINDS[choice % 6] } else { KINDS[choice % 8] };
    let spoils = input.byte() % 16;
    let sector = match spoils {
        1 => input.long(),
        2 => rules.capacity - u64::from(input.byte() % 4),
        _ => u64::from(input.byte()) * rules.block % rules.capacity,
    };
    let mut bytes = [kind.to_le_bytes(), [0; 4]].concat();
    bytes.extend(sector.to_le_bytes());
    match kind {
        1 => {
            let len = data_len(input, spoils);
            let first = u64::from(input.byte());
            bytes.extend((0..len).map(|at| content(at + first)));
        }
        11 | 13 => ranges(input, rules, &mut bytes),
        _ => {}
    }
    if spoils == 3 {
        bytes.truncate(usize::from(input.byte() % 24));
    }
    (kind, bytes)
}

fn data_len(input: &mut Input, spoils: u8) -> u64 {
    let len = u64::from(input.byte() % 9) * SECTOR;
    if spoils == 4 { len + u64::from(input.byte()) } else { len }
}

fn ranges(input: &mut Input, rules: Rules, bytes: &mut Vec<u8>) {
    let count = match input.byte() % 16 {
        0 => u16::from(input.byte() % 40),
        1 => 2,
        _ => 1,
    };
    for _ in 0..count {
        let spoils = input.byte() % 16;
        let sector = if spoils == 1 { input.long() } else { u64::from(input.byte()) * rules.block % rules.capacity };
        let count = if spoils == 2 { input.word() } else { u32::from(input.byte() % 8) * rules.block as u32 };
        let flags = match spoils {
            3 => input.word(),
            4 | 5 => 1,
            _ => 0,
        };
        bytes.extend(sector.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
    }
}

/// How many writable bytes a request has.
pub fn writable_len(input: &mut Input, kind: u32) -> u64 {
    let choice = input.byte();
    match (kind, choice) {
        (_, 255) => 0,
        (0, 0..=223) => u64::from(choice % 9) * SECTOR + 1,
        (8, 0..=223) => u64::from(choice % 32) + 1,
        (_, 224..=254) => u64::from(input.half() % 0x1400),
        _ => 1,
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}
