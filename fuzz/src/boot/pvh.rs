//! Any bytes as the notes of an ELF kernel, among which the PVH entry point is looked for.

use vmcell::BootProtocol;

use super::elf::{LOAD, NOTE, Program, image};
use super::{HIGH, Kernel, check_kernel};
use crate::input::{Input, Script};

/// XEN_ELFNOTE_PHYS32_ENTRY.
const ENTRY: u32 = 18;
/// The kernel's code ends here.
const END: u64 = HIGH + 0x8_0000;

/// What is among notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Entry(u64),
    /// They break the rules before there is an entry point, or in it.
    Malformed,
}

/// Walks notes as linkers write them: in a segment aligned to 8, descriptor and next note begin at a multiple of 8 from the note's
/// beginning, and otherwise at one of 4.
#[must_use]
pub fn find(mut notes: &[u8], alignment: usize) -> Found {
    let aligned = |at: usize| at.div_ceil(alignment) * alignment;
    while notes.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes([notes[at], notes[at + 1], notes[at + 2], notes[at + 3]]);
        let (name_len, desc_len) = (word(0) as usize, word(4) as usize);
        let begin = aligned(12 + name_len);
        let (Some(name), Some(desc)) = (notes.get(12..12 + name_len), notes.get(begin..begin + desc_len)) else {
            return Found::Malformed;
        };
        if word(8) == ENTRY && name == b"Xen\0" {
            let high = desc.iter().skip(4).any(|byte| *byte != 0);
            return match desc.first_chunk::<4>() {
                Some(low) if !high => Found::Entry(u32::from_le_bytes(*low).into()),
                _ => Found::Malformed,
            };
        }
        // Padding of the last note may be left out.
        notes = notes.get(aligned(begin + desc_len)..).unwrap_or_default();
    }
    Found::Nothing
}

/// A note with its padding.
#[must_use]
pub fn note(kind: u32, owner: &[u8], desc: &[u8], alignment: usize) -> Vec<u8> {
    let words = [owner.len(), desc.len()].map(|len| u32::try_from(len).expect("it is short"));
    let mut note = [words[0], words[1], kind].map(u32::to_le_bytes).concat();
    note.extend(owner);
    note.resize(note.len().div_ceil(alignment) * alignment, 0);
    note.extend(desc);
    note.resize(note.len().div_ceil(alignment) * alignment, 0);
    note
}

/// Runs one input: how many bytes are in each of two segments, their alignments, and the bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (choice, cut) = (input.byte(), usize::from(input.half()));
    let notes = bytes.get(3..).unwrap_or_default();
    let (first, second) = notes.split_at(cut.min(notes.len()));
    let alignments = [0, 1].map(|bit| if choice & 1 << bit != 0 { 8 } else { 4 });
    let found = match find(first, alignments[0]) {
        Found::Nothing => find(second, alignments[1]),
        found => found,
    };
    let behind = 64 + 3 * 56;
    let segment = |offset: u64, len: usize, alignment: usize| {
        let (file_size, alignment) = (len as u64, alignment as u64);
        Program { kind: NOTE, offset, file_size, alignment, ..Program::default() }
    };
    let code = Program { kind: LOAD, offset: behind, gpa: HIGH, memory_size: END - HIGH, ..Program::default() };
    let programs = [
        code,
        segment(behind, first.len(), alignments[0]),
        segment(behind + first.len() as u64, second.len(), alignments[1]),
    ];
    let image = image(HIGH, &programs, notes);
    let only_pvh = choice & 4 != 0;
    let entry = match found {
        Found::Nothing if !only_pvh => Some(HIGH),
        Found::Entry(entry) if (HIGH..END).contains(&entry) => Some(entry),
        _ => None,
    };
    let kernel = entry.map(|entry| Kernel { entry, parts: Vec::new() });
    let protocol = if only_pvh { BootProtocol::Pvh } else { BootProtocol::Auto };
    check_kernel(&image, |boot| boot.protocol(protocol), kernel.as_ref());
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let script = |choice: u8, cut: u16| Script::new().bytes(&[choice]).half(cut);
    let gnu = |alignment| note(1, b"GNU\0", b"abcde", alignment);
    let xen = |alignment| note(ENTRY, b"Xen\0", &0x10_0010u64.to_le_bytes(), alignment);
    let short = note(ENTRY, b"Xen\0", b"abc", 4);
    let far = note(ENTRY, b"Xen\0", &0x1_0010_0010u64.to_le_bytes(), 4);
    let empty: Vec<u8> = (0..100).flat_map(|_| note(0, b"", b"", 4)).collect();
    let long = [u32::MAX, u32::MAX, ENTRY].map(u32::to_le_bytes).concat();
    vec![
        ("first-segment", script(4, 100).bytes(&[gnu(4), xen(4)].concat()).done()),
        ("second-segment", script(6, 24).bytes(&gnu(4)).bytes(&xen(8)).done()),
        ("eight-bytes", script(5, 100).bytes(&[gnu(8), xen(8)].concat()).done()),
        ("too-short", script(0, 100).bytes(&short).done()),
        ("past-4-gib", script(0, 100).bytes(&far).done()),
        ("empty-notes", script(0, 2000).bytes(&empty).bytes(&xen(4)).done()),
        ("longest", script(0, 100).bytes(&long).done()),
        ("none", script(0, 0).done()),
    ]
}
