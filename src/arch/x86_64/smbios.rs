//! SMBIOS (DMTF DSP0134, version 3): strings of the host's for its guest, and nothing else. Only a guest that is given some finds tables.

use zerocopy::{Immutable, IntoBytes};

use super::layout::{GENERATION_ID, SMBIOS};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

/// The 64-bit entry point (section 5.2.2), which a kernel looks for in steps of 16 bytes from 0xf_0000 on.
#[derive(IntoBytes, Immutable)]
#[repr(C, packed)]
struct EntryPoint {
    anchor: [u8; 5],
    checksum: u8,
    len: u8,
    version: [u8; 3],
    revision: u8,
    reserved: u8,
    most_bytes: u32,
    table: u64,
}

/// OEM Strings (section 7.12), without the strings.
#[derive(IntoBytes, Immutable)]
#[repr(C, packed)]
struct OemStrings {
    kind: u8,
    len: u8,
    handle: u16,
    count: u8,
}

const ENTRY_POINT_LEN: u8 = 24;
const OEM_STRINGS: u8 = 11;
const OEM_STRINGS_LEN: u8 = 5;
/// The last structure, and the two NULs behind it.
const END_OF_TABLE: [u8; 6] = [127, 4, 1, 0, 0, 0];
const TABLE: u64 = SMBIOS.0 + 0x20;
const TABLE_ROOM: usize = 0xbfe0;
const _: () = assert!(TABLE + TABLE_ROOM as u64 == GENERATION_ID.0);

/// The most strings that there may be.
pub(crate) const MOST_OEM_STRINGS: usize = u8::MAX as usize;
/// The most bytes of all strings together, if one more is counted for each. Linux copies them early, into 64 KiB that it has for all of DMI.
pub(crate) const OEM_STRINGS_ROOM: usize = TABLE_ROOM - OEM_STRINGS_LEN as usize - 1 - END_OF_TABLE.len();

/// Writes tables with strings of these lengths, which are to be written over, and returns where those begin. The caller has seen to it that
/// they are few and short enough, and at least one byte long.
///
/// # Errors
/// `ErrorKind::GuestAddress` if the guest has not so much memory.
pub(crate) fn write_oem_strings(memory: &GuestMemory, lens: &[usize]) -> Result<Vec<GuestAddress>> {
    let count = u8::try_from(lens.len()).unwrap_or(u8::MAX);
    let header = OemStrings { kind: OEM_STRINGS, len: OEM_STRINGS_LEN, handle: 0, count };
    let mut table = header.as_bytes().to_vec();
    let mut places = Vec::new();
    for len in lens {
        places.push(GuestAddress(TABLE.saturating_add(table.len() as u64)));
        table.resize(table.len().saturating_add(*len), BLANK);
        table.push(0);
    }
    table.push(0);
    table.extend(END_OF_TABLE);
    debug_assert!(table.len() <= TABLE_ROOM);
    memory.write(GuestAddress(TABLE), &table)?;
    memory.write_value(SMBIOS, &entry_point(table.len()))?;
    Ok(places)
}

/// What stands where a string is not yet, or no longer: a NUL would end the table there.
pub(crate) const BLANK: u8 = b'-';

fn entry_point(table_len: usize) -> EntryPoint {
    let mut entry = EntryPoint {
        anchor: *b"_SM3_",
        checksum: 0,
        len: ENTRY_POINT_LEN,
        version: [3, 0, 0],
        revision: 1,
        reserved: 0,
        most_bytes: u32::try_from(table_len).unwrap_or(u32::MAX),
        table: TABLE,
    };
    entry.checksum = entry.as_bytes().iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20)]).unwrap()
    }

    #[test]
    fn a_walk_of_the_table_finds_each_string_where_it_was_said_to_be() {
        let memory = memory();
        let places = write_oem_strings(&memory, &[3, 1]).unwrap();
        for (place, text) in places.iter().zip(["one", "2"]) {
            memory.write(*place, text.as_bytes()).unwrap();
        }
        let mut entry = [0; 24];
        memory.read(SMBIOS, &mut entry).unwrap();
        assert_eq!((&entry[..5], entry[6], &entry[7..11]), (&b"_SM3_"[..], 24, &[3, 0, 0, 1][..]));
        assert_eq!(entry.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), 0);
        let len = u32::from_le_bytes(entry[12..16].try_into().unwrap()) as usize;
        let mut table = vec![0; len];
        memory.read(GuestAddress(u64::from_le_bytes(entry[16..].try_into().unwrap())), &mut table).unwrap();
        assert_eq!(table, b"\x0b\x05\0\0\x02one\x002\0\0\x7f\x04\x01\0\0\0");
        assert_eq!(SMBIOS.0 % 16, 0);
    }

    #[test]
    fn as_many_bytes_as_are_allowed_end_where_the_next_structure_begins() {
        let memory = memory();
        memory.write(GENERATION_ID, &[7; 16]).unwrap();
        let places =
            write_oem_strings(&memory, &vec![OEM_STRINGS_ROOM / MOST_OEM_STRINGS - 1; MOST_OEM_STRINGS]).unwrap();
        assert_eq!(places.len(), MOST_OEM_STRINGS);
        write_oem_strings(&memory, &[OEM_STRINGS_ROOM - 1]).unwrap();
        let mut last = [0; 7];
        memory.read(GuestAddress(GENERATION_ID.0 - 6), &mut last).unwrap();
        assert_eq!(last, [127, 4, 1, 0, 0, 0, 7]);
    }
}
