//! Any bytes as an ELF kernel: it is loaded as a model of the ELF gABI says, or refused.

use vmcell::BootProtocol;

use super::pvh::{self, Found};
use super::{Fields, GAP, HIGH, Kernel, RAM, check_kernel};
use crate::input::{Input, Script};

const HEADER: u64 = 64;
const PROGRAM: u64 = 56;
pub const LOAD: u32 = 1;
pub const NOTE: u32 = 4;

/// A program header, whatever it says.
#[derive(Clone, Copy, Default)]
pub struct Program {
    pub kind: u32,
    pub offset: u64,
    pub gpa: u64,
    pub file_size: u64,
    pub memory_size: u64,
    pub alignment: u64,
}

/// Runs one input: either the image itself, or a recipe for one.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.below(8);
    let protocol = match choice / 2 {
        0 => BootProtocol::Linux64,
        1 => BootProtocol::Pvh,
        _ => BootProtocol::Auto,
    };
    let image = if choice.is_multiple_of(2) { bytes.get(1..).unwrap_or_default().to_vec() } else { cook(&mut input) };
    if Fields(&image).bytes(0, 4) != Some(b"\x7fELF") && Fields(&image).bytes(0x202, 4) == Some(b"HdrS") {
        // That is another target.
        return;
    }
    check_kernel(&image, |boot| boot.protocol(protocol), expected(&image, protocol).as_ref());
}

/// What becomes of an image; `None` if it must be refused.
#[must_use]
pub fn expected(image: &[u8], protocol: BootProtocol) -> Option<Kernel<'_>> {
    let fields = Fields(image);
    let identity = fields.bytes(0, HEADER)?;
    let is_ours = identity.starts_with(b"\x7fELF\x02\x01") && fields.half(18)? == 62;
    let (count, table) = (fields.half(56)?, fields.long(32)?);
    if !is_ours || table < HEADER || (count > 0 && fields.half(54)? != PROGRAM) {
        return None;
    }
    fields.bytes(table, count * PROGRAM)?;
    let programs: Vec<Program> = (0..count).filter_map(|number| program(fields, table + number * PROGRAM)).collect();
    let mut parts = Vec::new();
    let mut places = Vec::new();
    for program in programs.iter().filter(|program| program.kind == LOAD && program.memory_size > 0) {
        let bytes = fields.bytes(program.offset, program.file_size)?;
        let end = program.gpa.checked_add(program.memory_size)?;
        if program.file_size > program.memory_size || program.gpa < HIGH || end > GAP.min(RAM) {
            return None;
        }
        if places.iter().any(|(start, stop)| program.gpa < *stop && *start < end) {
            return None;
        }
        places.push((program.gpa, end));
        parts.push((program.gpa, bytes));
    }
    let entry = match (protocol, pvh_entry(fields, &programs, protocol)) {
        (BootProtocol::Linux64, _) | (BootProtocol::Auto, Found::Nothing) => fields.long(24)?,
        (_, Found::Entry(entry)) => entry,
        _ => return None,
    };
    places.iter().any(|(start, end)| (*start..*end).contains(&entry)).then_some(Kernel { entry, parts })
}

fn program(fields: Fields<'_>, at: u64) -> Option<Program> {
    Some(Program {
        kind: u32::try_from(fields.word(at)?).ok()?,
        offset: fields.long(at + 8)?,
        gpa: fields.long(at + 24)?,
        file_size: fields.long(at + 32)?,
        memory_size: fields.long(at + 40)?,
        alignment: fields.long(at + 48)?,
    })
}

fn pvh_entry(fields: Fields<'_>, programs: &[Program], protocol: BootProtocol) -> Found {
    if protocol == BootProtocol::Linux64 {
        return Found::Nothing;
    }
    for program in programs.iter().filter(|program| program.kind == NOTE) {
        let Some(notes) = fields.bytes(program.offset, program.file_size) else { return Found::Malformed };
        match pvh::find(notes, if program.alignment == 8 { 8 } else { 4 }) {
            Found::Nothing => {}
            found => return found,
        }
    }
    Found::Nothing
}

/// An image of these program headers, and what lies behind them.
#[must_use]
pub fn image(entry: u64, programs: &[Program], rest: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2u16, 62].map(u16::to_le_bytes).as_flattened());
    image.extend(1u32.to_le_bytes());
    image.extend([entry, HEADER, 0].map(u64::to_le_bytes).as_flattened());
    image.extend(0u32.to_le_bytes());
    let count = u16::try_from(programs.len()).expect("they are few");
    image.extend([64, 56, count, 64, 0, 0].map(u16::to_le_bytes).as_flattened());
    for program in programs {
        image.extend([program.kind, 7].map(u32::to_le_bytes).as_flattened());
        let Program { offset, gpa, file_size, memory_size, alignment, .. } = *program;
        image.extend([offset, gpa, gpa, file_size, memory_size, alignment].map(u64::to_le_bytes).as_flattened());
    }
    image.extend(rest);
    image
}

/// An image whose form is right, of numbers that may not be.
fn cook(input: &mut Input) -> Vec<u8> {
    let count = 1 + input.below(5);
    let len = u64::from(input.half() % 0x3000);
    let data = HEADER + u64::from(count) * PROGRAM;
    let programs: Vec<_> = (0..count).map(|_| cook_program(input, data, len)).collect();
    let entry = match input.below(4) {
        0 => number(input),
        _ => programs.first().map_or(0, |program| program.gpa.wrapping_add(input.byte().into())),
    };
    let (first, step) = (input.byte(), input.byte());
    let mut rest: Vec<u8> = (0..len).map(|at| first.wrapping_add(step.wrapping_mul(at as u8))).collect();
    let entry_in_note = if input.one_in(4) { input.long() } else { HIGH + u64::from(input.byte()) };
    let note = pvh::note(if input.one_in(8) { 1 } else { 18 }, b"Xen\0", &entry_in_note.to_le_bytes(), 4);
    rest.iter_mut().zip(note).for_each(|(to, from)| *to = from);
    let mut image = image(entry, &programs, &rest);
    // Damage.
    for _ in 0..input.below(4) {
        let at = usize::from(input.half()) % image.len();
        image[at] = input.byte();
    }
    if input.one_in(8) {
        image.truncate(usize::from(input.half()));
    }
    image
}

fn cook_program(input: &mut Input, data: u64, len: u64) -> Program {
    let kind = match input.below(4) {
        0 => NOTE,
        1 => u32::from(input.byte() % 8),
        _ => LOAD,
    };
    let odd = input.byte();
    let pick = |bit: u8, usual: u64, input: &mut Input| if odd & bit != 0 { number(input) } else { usual };
    let offset = u64::from(input.half()) % (len + 1);
    let size = u64::from(input.half()) % (len - offset + 1);
    let gpa = HIGH + u64::from(input.half()) * 16;
    Program {
        kind,
        offset: pick(1, data + offset, input),
        gpa: pick(2, gpa, input),
        file_size: pick(4, size, input),
        memory_size: pick(8, size + u64::from(input.byte()), input),
        alignment: pick(16, 4, input),
    }
}

/// One at which arithmetic may go wrong.
fn number(input: &mut Input) -> u64 {
    match input.below(8) {
        0 => input.long(),
        1 => u64::MAX - u64::from(input.byte()),
        2 => RAM - u64::from(input.byte()),
        3 => HIGH - u64::from(input.byte()),
        4 => GAP - u64::from(input.byte()),
        5 => 1 << (input.byte() % 64),
        6 => input.half().into(),
        _ => input.byte().into(),
    }
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let load = |gpa, offset, len| Program { kind: LOAD, offset, gpa, file_size: len, memory_size: len, alignment: 4 };
    let code = HEADER + PROGRAM;
    let notes = [pvh::note(1, b"GNU\0", b"abcd", 4), pvh::note(18, b"Xen\0", &0x10_0004u64.to_le_bytes(), 4)].concat();
    let behind = HEADER + 2 * PROGRAM;
    let noted = [load(HIGH, behind, 16), Program { kind: NOTE, ..load(0, behind + 16, notes.len() as u64) }];
    let with_notes = image(HIGH, &noted, &[&[0x90; 16][..], &notes].concat());
    let whole = |choice: u8, image: &[u8]| Script::new().bytes(&[choice]).bytes(image).done();
    let overlap = image(HIGH, &[load(HIGH, behind, 16), load(HIGH + 8, behind, 16)], &[0x90; 16]);
    let holes = Script::new().bytes(&[1, 0]).half(0x2fff).bytes(&[2, 0]).half(0).half(0x2fff).half(0).bytes(&[9, 1, 0]);
    vec![
        ("linux", whole(0, &image(HIGH, &[load(HIGH, code, 16)], &[0x90; 16]))),
        ("pvh", whole(2, &with_notes)),
        ("auto", whole(4, &with_notes)),
        ("below-1-mib", whole(0, &image(HIGH, &[load(HIGH - 1, code, 16)], &[0x90; 16]))),
        ("to-the-end", whole(0, &image(RAM - 1, &[load(RAM - 16, code, 16)], &[0x90; 16]))),
        ("past-the-end", whole(0, &image(RAM - 1, &[load(RAM - 15, code, 16)], &[0x90; 16]))),
        ("overlap", whole(0, &overlap)),
        ("truncated", whole(0, &with_notes[..120])),
        ("cooked", Script::new().bytes(&[1, 2]).half(600).bytes(&[7; 80]).done()),
        ("cooked-holes", holes.done()),
    ]
}
