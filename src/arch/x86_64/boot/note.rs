//! The PVH entry point: a note in an ELF image (ELF gABI, "Note Section"; Xen's `xen/include/public/elfnote.h`).

/// XEN_ELFNOTE_PHYS32_ENTRY, and the name that its notes carry.
const PHYS32_ENTRY: u32 = 18;
const OWNER: &[u8] = b"Xen\0";
const NOTE_HEADER: usize = 12;
const ENTRY_SIZE: usize = 4;

/// Looks for the entry point in the bytes of a note segment, whose notes are padded to `alignment` (4 or 8) bytes.
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
        let desc_start = name_start.saturating_add(name_len.next_multiple_of(alignment));
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
