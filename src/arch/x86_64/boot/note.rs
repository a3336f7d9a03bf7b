//! The PVH entry point: a note in an ELF image (ELF gABI, "Note Section"; Xen's `xen/include/public/elfnote.h`).

/// XEN_ELFNOTE_PHYS32_ENTRY, and the name that its notes carry.
const PHYS32_ENTRY: u32 = 18;
const OWNER: &[u8] = b"Xen\0";
const NOTE_HEADER: usize = 12;
const ENTRY_SIZE: usize = 4;

/// Looks for the entry point in the bytes of a note segment, whose descriptors and notes begin at a multiple of `alignment` (4 or 8).
/// What is padded is a note so far, with its header: the name of a note in a segment of 8 ends at 16, and no padding follows.
///
/// Every step goes on by a whole note header at least, so the time is linear in the number of bytes.
///
/// # Errors
/// A description of the bad note, in words that follow the image's name.
pub(super) fn pvh_entry(segment: &[u8], alignment: usize) -> Result<Option<u32>, String> {
    let mut at = 0;
    // Padding after the last note may be left out, or be longer than a note is.
    while segment.len().saturating_sub(at) >= NOTE_HEADER {
        let field = |offset: usize| {
            let bytes = segment.get(at.saturating_add(offset)..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (name_len, desc_len, kind) = (field(0) as usize, field(4) as usize, field(8));
        let name_start = at.saturating_add(NOTE_HEADER);
        let desc_start = name_start.saturating_add(name_len).next_multiple_of(alignment);
        let desc_end = desc_start.saturating_add(desc_len);
        let name = segment.get(name_start..name_start.saturating_add(name_len));
        let (Some(name), Some(desc)) = (name, segment.get(desc_start..desc_end)) else {
            return Err(format!(
                "has a note at offset {at:#x} of its note segment that runs past the segment's end at {:#x}: \
                 name_len={name_len:#x} desc_len={desc_len:#x}",
                segment.len()
            ));
        };
        if kind == PHYS32_ENTRY && name == OWNER {
            return entry(desc).map(Some);
        }
        at = desc_end.next_multiple_of(alignment);
    }
    Ok(None)
}

/// The descriptor is an address of 4 bytes, or one of 8 bytes whose upper half is zero.
fn entry(desc: &[u8]) -> Result<u32, String> {
    match desc.split_first_chunk::<ENTRY_SIZE>() {
        Some((low, high)) if high.iter().all(|byte| *byte == 0) => Ok(u32::from_le_bytes(*low)),
        Some(_) => Err(format!("has a PVH note with an entry point past 4 GiB: {desc:02x?}")),
        None => Err(format!("has a PVH note of {} bytes, needed are {ENTRY_SIZE}", desc.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a linker makes of `.note.gnu.property`, a segment aligned to 8 bytes.
    const PROPERTY: [u8; 32] = *b"\x04\0\0\0\x10\0\0\0\x05\0\0\0GNU\0\x02\x80\0\xc0\x04\0\0\0\x01\0\0\0\0\0\0\0";

    #[test]
    fn notes_of_a_segment_aligned_to_8_bytes_are_read_as_linkers_write_them() {
        assert_eq!(pvh_entry(&PROPERTY, 8), Ok(None));
        let xen = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x10\0\x10\0\0\0\0\0";
        assert_eq!(pvh_entry(&[&PROPERTY[..], xen].concat(), 8), Ok(Some(0x10_0010)));
        assert_eq!(pvh_entry(&[&xen[..16], &[0xee; 4]].concat(), 8), Ok(Some(0xeeee_eeee)));
    }

    #[test]
    fn names_are_padded_to_the_alignment() {
        let long = |alignment: usize| {
            let mut note = b"\x05\0\0\0\x04\0\0\0\x01\0\0\0ABCD\0".to_vec();
            note.resize(note.len().next_multiple_of(alignment), 0);
            note.extend([0xee; 4]);
            note.resize(note.len().next_multiple_of(alignment), 0);
            [&note[..], b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x10\0\x10\0"].concat()
        };
        for alignment in [4, 8] {
            assert_eq!(pvh_entry(&long(alignment), alignment), Ok(Some(0x10_0010)), "{alignment}");
        }
    }
}
