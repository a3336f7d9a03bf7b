//! The first page of a file: what it is, its version, and where its sections lie.

use super::{damaged, refused};
use crate::error::Result;

/// A page, all of which has one checksum.
pub(super) const HEADER: usize = 4096;
const MAGIC: [u8; 8] = *b"VMCELLSN";
/// The version of the layout that is written. All from 1 on are read.
const VERSION: u32 = 1;
const ARCHITECTURE: [u8; 8] = *b"x86_64\0\0";
/// Where the checksum stands; it counts as zeroes for itself.
const CHECKSUM: usize = 12;
const ARCHITECTURE_AT: usize = 16;
const SECTIONS: usize = 24;
const SECTION: usize = 32;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// All but the RAM, as JSON.
    Machine,
    /// Where each block of the RAM lies.
    Blocks,
    /// The blocks, one behind the other.
    Memory,
}

impl Tag {
    pub(super) const ALL: [Self; 3] = [Self::Machine, Self::Blocks, Self::Memory];

    fn bytes(self) -> [u8; 8] {
        match self {
            Self::Machine => *b"machine\0",
            Self::Blocks => *b"blocks\0\0",
            Self::Memory => *b"memory\0\0",
        }
    }
}

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Of its bytes; 0 of the memory, each block of which has its own.
    pub(super) checksum: u32,
}

/// In the order of [`Tag::ALL`].
pub(super) type Sections = [Section; Tag::ALL.len()];

pub(super) fn write(sections: &Sections) -> Vec<u8> {
    let mut page = Vec::with_capacity(HEADER);
    page.extend(MAGIC);
    page.extend(VERSION.to_le_bytes());
    page.extend([0; 4]);
    page.extend(ARCHITECTURE);
    for (tag, section) in Tag::ALL.into_iter().zip(sections) {
        page.extend(tag.bytes());
        page.extend(section.offset.to_le_bytes());
        page.extend(section.len.to_le_bytes());
        page.extend(section.checksum.to_le_bytes());
        page.extend([0; 4]);
    }
    page.resize(HEADER, 0);
    let checksum = crc32fast::hash(&page).to_le_bytes();
    page.iter_mut().skip(CHECKSUM).zip(checksum).for_each(|(to, byte)| *to = byte);
    page
}

/// Reads the header of a file of `file_len` bytes. What it has not is zeroes.
pub(super) fn read(page: &[u8; HEADER], file_len: u64) -> Result<Sections> {
    if !page.starts_with(&MAGIC) {
        return Err(refused("it is no snapshot: the first 8 bytes are others"));
    }
    if file_len < HEADER as u64 {
        return Err(damaged(format!("it has {file_len} bytes, and {HEADER} are needed for its header")));
    }
    let version = number(page, MAGIC.len());
    if version == 0 || version > VERSION {
        return Err(refused(format!("its layout has version {version}, known are 1 to {VERSION}")));
    }
    let mut summed = *page;
    summed.iter_mut().skip(CHECKSUM).take(4).for_each(|byte| *byte = 0);
    if crc32fast::hash(&summed) != number(page, CHECKSUM) {
        return Err(damaged("the checksum of its header does not agree"));
    }
    let architecture = field::<8>(page, ARCHITECTURE_AT);
    if architecture != ARCHITECTURE {
        let name = String::from_utf8_lossy(&architecture);
        let name = name.trim_end_matches('\0').escape_default();
        return Err(refused(format!("it is of a machine of another architecture, {name}, allowed is x86_64")));
    }
    let mut sections = Sections::default();
    for (index, (tag, section)) in Tag::ALL.into_iter().zip(&mut sections).enumerate() {
        let at = SECTIONS.saturating_add(index.saturating_mul(SECTION));
        if field::<8>(page, at) != tag.bytes() {
            return Err(damaged(format!("its section {index} is not the one of its layout")));
        }
        let wide = |skip: usize| u64::from_le_bytes(field(page, at.saturating_add(skip)));
        *section = Section { offset: wide(8), len: wide(16), checksum: number(page, at.saturating_add(24)) };
        let end = section.offset.checked_add(section.len);
        if end.is_none_or(|end| end > file_len) || section.offset < HEADER as u64 {
            let (offset, len) = (section.offset, section.len);
            return Err(damaged(format!("it has {file_len} bytes, and {len} from {offset} on are needed")));
        }
    }
    Ok(sections)
}

fn number(page: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes(field(page, at))
}

fn field<const N: usize>(page: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(page.iter().skip(at)).for_each(|(to, byte)| *to = *byte);
    bytes
}
