//! Any bytes as a bzImage: it is loaded as a model of the boot protocol says, or refused.

use super::{Fields, HIGH, Kernel, RAM, check_kernel};
use crate::input::{Input, Script};

/// Where the setup header begins, and the byte that says where it ends.
const HEADER: u64 = 0x1f1;
const LENGTH: u64 = 0x201;
const HEADER_LEN: usize = 0x7b;
const MAGIC: u64 = 0x202;
/// The 64-bit entry point, behind so many bytes of the kernel.
const ENTRY: u64 = 0x200;

/// Fields of the header: where they are, and how many bytes they have (Documentation/arch/x86/boot.rst).
const SECTORS: (u64, u64) = (0x1f1, 1);
const SYSSIZE: (u64, u64) = (0x1f4, 4);
const VERSION: (u64, u64) = (0x206, 2);
const LOADFLAGS: (u64, u64) = (0x211, 1);
const ALIGNMENT: (u64, u64) = (0x230, 4);
const RELOCATABLE: (u64, u64) = (0x234, 1);
const XLOADFLAGS: (u64, u64) = (0x236, 2);
const PREFERRED: (u64, u64) = (0x258, 8);
const INIT_SIZE: (u64, u64) = (0x260, 4);

/// Runs one input: either the image itself, or a recipe for one.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = if input.one_in(2) { cook(&mut input) } else { bytes.get(1..).unwrap_or_default().to_vec() };
    if Fields(&image).bytes(0, 4) == Some(b"\x7fELF") {
        // That is another target.
        return;
    }
    check_kernel(&image, |boot| boot, expected(&image).as_ref());
}

/// What becomes of an image; `None` if it must be refused.
fn expected(image: &[u8]) -> Option<Kernel<'_>> {
    let fields = Fields(image);
    if fields.bytes(MAGIC, 4)? != b"HdrS" {
        return None;
    }
    let end = MAGIC + u64::from(*fields.bytes(LENGTH, 1)?.first()?);
    // What lies past the header's end is zero.
    let mut header = fields.bytes(HEADER, end - HEADER)?.to_vec();
    header.resize(HEADER_LEN, 0);
    let field = |(at, len): (u64, u64)| {
        let start = (at - HEADER) as usize;
        header[start..start + len as usize].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    if field(VERSION) < 0x20c || field(LOADFLAGS) & 1 == 0 || field(XLOADFLAGS) & 1 == 0 {
        return None;
    }
    let sectors = if field(SECTORS) == 0 { 4 } else { field(SECTORS) };
    let payload = image.get(512 * (sectors as usize + 1)..)?;
    let len = payload.len() as u64;
    if len < (16 * field(SYSSIZE)).max(ENTRY) {
        return None;
    }
    let alignment = field(ALIGNMENT);
    let moves = field(RELOCATABLE) != 0 && alignment.is_power_of_two();
    let start = if moves { field(PREFERRED).checked_next_multiple_of(alignment)? } else { field(PREFERRED) };
    let fits = start >= HIGH && start.checked_add(len.max(field(INIT_SIZE)))? <= RAM;
    fits.then(|| Kernel { entry: start + ENTRY, parts: vec![(start, payload)] })
}

/// An image whose form is right, of numbers that may not be.
fn cook(input: &mut Input) -> Vec<u8> {
    let sectors = input.below(5) as u8;
    let setup = 512 * (usize::from(if sectors == 0 { 4 } else { sectors }) + 1);
    let len = usize::from(input.half() % 0x4000);
    let (first, step) = (input.byte(), input.byte());
    let mut image = vec![0; setup];
    image.extend((0..len).map(|at| first.wrapping_add(step.wrapping_mul(at as u8))));
    put(&mut image, SECTORS, sectors.into());
    put(&mut image, (LENGTH, 1), if input.one_in(8) { input.byte().into() } else { 0x6a });
    put(&mut image, (MAGIC, 4), u32::from_le_bytes(*b"HdrS").into());
    let odd = input.half();
    let fields = [
        (SYSSIZE, len as u64 / 16),
        (VERSION, 0x20f),
        (LOADFLAGS, 1),
        (XLOADFLAGS, 1),
        (ALIGNMENT, 1 << (input.byte() % 22)),
        (RELOCATABLE, u64::from(input.byte() % 2)),
        (PREFERRED, HIGH + u64::from(input.half()) * 16),
        (INIT_SIZE, input.half().into()),
    ];
    for (bit, (field, usual)) in fields.into_iter().enumerate() {
        let value = if odd & 1 << bit != 0 { number(input) } else { usual };
        put(&mut image, field, value);
    }
    if input.one_in(8) {
        image.truncate(usize::from(input.half()));
    }
    image
}

fn put(image: &mut [u8], (at, len): (u64, u64), value: u64) {
    let start = at as usize;
    image[start..start + len as usize].copy_from_slice(&value.to_le_bytes()[..len as usize]);
}

/// One at which arithmetic may go wrong.
fn number(input: &mut Input) -> u64 {
    match input.below(6) {
        0 => input.long(),
        1 => u64::MAX - u64::from(input.half()),
        2 => RAM - u64::from(input.half()),
        3 => HIGH.wrapping_sub(input.byte().into()),
        4 => 1 << (input.byte() % 64),
        _ => input.byte().into(),
    }
}

/// An image of so many bytes behind one sector of setup, with some fields set.
#[must_use]
pub fn image(len: usize, fields: &[((u64, u64), u64)]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image.extend((0..len).map(|at| at as u8));
    let usual = [
        (SECTORS, 1),
        ((LENGTH, 1), 0x6a),
        ((MAGIC, 4), u32::from_le_bytes(*b"HdrS").into()),
        (SYSSIZE, len as u64 / 16),
        (VERSION, 0x20f),
        (LOADFLAGS, 1),
        (XLOADFLAGS, 1),
        (PREFERRED, HIGH),
    ];
    usual.iter().chain(fields).for_each(|(field, value)| put(&mut image, *field, *value));
    image
}

/// The highest address of an initrd, and the longest command line.
pub const INITRD_MAX: (u64, u64) = (0x22c, 4);
pub const CMDLINE_SIZE: (u64, u64) = (0x238, 4);
/// How much memory the kernel needs to unpack itself.
pub const UNPACKED: (u64, u64) = INIT_SIZE;

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let whole = |image: &[u8]| Script::new().bytes(&[0]).bytes(image).done();
    let moved = [(RELOCATABLE, 1), (ALIGNMENT, 0x10_0000), (PREFERRED, HIGH + 1)];
    let cooked = |odd: u16| Script::new().bytes(&[1, 1]).half(0x2fff).bytes(&[9, 1, 0]).half(odd).bytes(&[12, 1]);
    vec![
        ("small", whole(&image(0x200, &[]))),
        ("unpacks-to-the-end", whole(&image(0x200, &[(INIT_SIZE, RAM - HIGH)]))),
        ("unpacks-past-the-end", whole(&image(0x200, &[(INIT_SIZE, RAM - HIGH + 1)]))),
        ("below-1-mib", whole(&image(0x200, &[(PREFERRED, HIGH - 1)]))),
        ("moved", whole(&image(0x200, &moved))),
        ("short-header", whole(&image(0x200, &[((LENGTH, 1), 0x20)]))),
        ("truncated", whole(&image(0x200, &[])[..0x300])),
        ("cooked", cooked(0).half(100).half(0x4000).done()),
        ("cooked-odd", cooked(0xff).bytes(&[3; 40]).done()),
    ]
}
