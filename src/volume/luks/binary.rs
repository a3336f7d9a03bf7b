//! The binary header of LUKS2, in front of its JSON, and its two copies (LUKS2 on-disk format, section 2).

use std::io;

use super::hash::Hash;
use super::storage::Storage;
use crate::error::Result;
use crate::sys::random_bytes;
use crate::volume::{no_random, refused};

/// Bytes of the binary header.
pub(super) const BINARY: usize = 4096;
/// The sizes that a header may have, JSON and all; the second copy lies there.
pub(super) const SIZES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
/// More text than that is refused before it is read into anything. Headers have some kilobytes.
const MOST_TEXT: usize = 512 << 10;

const VERSION: u16 = 2;

/// Where the fields lie.
mod at {
    use std::ops::Range;

    pub const MAGIC: Range<usize> = 0..6;
    pub const VERSION: Range<usize> = 6..8;
    pub const SIZE: Range<usize> = 8..16;
    pub const SEQUENCE: Range<usize> = 16..24;
    pub const LABEL: Range<usize> = 24..72;
    pub const HASH: Range<usize> = 72..104;
    pub const SALT: Range<usize> = 104..168;
    pub const UUID: Range<usize> = 168..208;
    pub const SUBSYSTEM: Range<usize> = 208..256;
    pub const OFFSET: Range<usize> = 256..264;
    pub const CHECKSUM: Range<usize> = 448..512;
}

/// One copy of a header, as it was read.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) sequence: u64,
    pub(super) size: u64,
    pub(super) label: String,
    pub(super) uuid: String,
    subsystem: String,
    hash: Hash,
    /// The JSON.
    pub(super) text: Vec<u8>,
}

/// Which copy.
#[derive(Clone, std::marker::Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Second,
}

impl Which {
    fn magic(self) -> &'static [u8; 6] {
        match self {
            Self::First => b"LUKS\xba\xbe",
            Self::Second => b"SKUL\xba\xbe",
        }
    }
}

impl Copy {
    /// Of a volume that is made now.
    pub(super) fn new(size: u64, uuid: String, label: &str, text: Vec<u8>) -> Self {
        let (label, subsystem) = (label.to_owned(), String::new());
        Self { sequence: 0, size, label, uuid, subsystem, hash: Hash::Sha256, text }
    }

    /// Reads the copy at `offset`.
    pub(super) fn read(file: &impl Storage, which: Which, offset: u64) -> Result<Self> {
        let mut binary = [0; BINARY];
        file.read_at(&mut binary, offset).map_err(cut)?;
        let copy = Self::parse(&binary, which, offset)?;
        let mut whole = vec![0; usize::try_from(copy.size).unwrap_or_default()];
        file.read_at(&mut whole, offset).map_err(cut)?;
        copy.check(whole)
    }

    fn parse(binary: &[u8; BINARY], which: Which, offset: u64) -> Result<Self> {
        let field = |range| binary.get::<std::ops::Range<usize>>(range).unwrap_or_default();
        let number = |range| field(range).iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let magic = field(at::MAGIC);
        if magic != which.magic() {
            return Err(refused("it is no LUKS volume: its header does not begin as one"));
        }
        if number(at::VERSION) != u64::from(VERSION) {
            let message = format!("it is a LUKS volume of version {}, known is version 2", number(at::VERSION));
            return Err(refused(message));
        }
        let size = number(at::SIZE);
        if !SIZES.contains(&size) {
            return Err(refused(format!("a header has {size} bytes, allowed are 16 KiB to 4 MiB, doubled each time")));
        }
        if number(at::OFFSET) != offset {
            let message = format!("a header that lies at byte {offset} says that it lies at {}", number(at::OFFSET));
            return Err(refused(message));
        }
        let hash = Hash::named(&text(field(at::HASH)), "the header's checksum")?;
        let (label, uuid, subsystem) = (text(field(at::LABEL)), text(field(at::UUID)), text(field(at::SUBSYSTEM)));
        Ok(Self { sequence: number(at::SEQUENCE), size, label, uuid, subsystem, hash, text: Vec::new() })
    }

    /// Takes the text if the checksum is right.
    fn check(mut self, mut whole: Vec<u8>) -> Result<Self> {
        let mut said = [0; 64];
        if let Some(checksum) = whole.get_mut(at::CHECKSUM) {
            said.copy_from_slice(checksum);
            checksum.fill(0);
        }
        if self.hash.digest(&[&whole]) != said {
            return Err(refused("a header is damaged: its checksum is another"));
        }
        let text = whole.get(BINARY..).unwrap_or_default();
        let len = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        if len > MOST_TEXT {
            return Err(refused(format!("a header has {len} bytes of JSON, allowed are {MOST_TEXT}")));
        }
        self.text = text.get(..len).unwrap_or_default().to_vec();
        Ok(self)
    }

    /// Where the other copy lies.
    pub(super) fn offset(&self, which: Which) -> u64 {
        match which {
            Which::First => 0,
            Which::Second => self.size,
        }
    }

    /// The bytes of one copy, with a new salt.
    ///
    /// # Errors
    /// If the text has no room.
    pub(super) fn write(&self, which: Which) -> Result<Vec<u8>> {
        let mut whole = vec![0; usize::try_from(self.size).unwrap_or_default()];
        let room = whole.len().saturating_sub(BINARY);
        // One byte less, since the text ends with a zero.
        if self.text.len() >= room {
            let message = format!("the header would have {} bytes of JSON, it has room for {room}", self.text.len());
            return Err(refused(message));
        }
        let mut salt = [0; 64];
        random_bytes(&mut salt).map_err(no_random)?;
        let fields: [(_, &[u8]); 11] = [
            (at::MAGIC, which.magic()),
            (at::VERSION, &VERSION.to_be_bytes()),
            (at::SIZE, &self.size.to_be_bytes()),
            (at::SEQUENCE, &self.sequence.to_be_bytes()),
            (at::LABEL, self.label.as_bytes()),
            (at::HASH, self.hash.name().as_bytes()),
            (at::SALT, &salt),
            (at::UUID, self.uuid.as_bytes()),
            (at::SUBSYSTEM, self.subsystem.as_bytes()),
            (at::OFFSET, &self.offset(which).to_be_bytes()),
            (BINARY..whole.len(), &self.text),
        ];
        for (place, bytes) in fields {
            let place = whole.get_mut(place).unwrap_or_default();
            place.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        let checksum = self.hash.digest(&[&whole]);
        if let Some(place) = whole.get_mut(at::CHECKSUM) {
            place.copy_from_slice(&checksum);
        }
        Ok(whole)
    }
}

fn text(field: &[u8]) -> String {
    let len = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(field.get(..len).unwrap_or_default()).into_owned()
}

fn cut(e: io::Error) -> crate::Error {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return refused("it ends in the middle of its header");
    }
    refused("its header cannot be read").with_source(e)
}
