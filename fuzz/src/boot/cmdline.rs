//! Any text as a command line: what a kernel's parser makes of it must be what the caller wrote, and the devices.

use std::cell::RefCell;

use vmcell::testing::rooms::device_place;
use vmcell::{Boot, Discovery, GuestAddress, GuestMemory};

use super::bzimage::{CMDLINE_SIZE, image};
use super::{Fields, Image, RAM, check_refusal, load};
use crate::input::{Input, Script};
use crate::world::PATTERN;

const ZERO_PAGE: u64 = 0x7000;
/// There is so much room for the text and its NUL.
const ROOM: u64 = 0x1_0000;

struct Guest {
    memory: GuestMemory,
    image: Image,
}

thread_local! {
    static GUEST: RefCell<Guest> = RefCell::new(Guest {
        memory: GuestMemory::anonymous(&[(GuestAddress(0), RAM)]).expect("the host provides the memory"),
        image: Image::new(),
    });
}

/// Runs one input: how many devices there are, what the kernel takes, and the text.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let devices = usize::from(input.below(20));
    let limit = match input.below(4) {
        0 => 2047,
        1 => u32::from(input.byte()),
        2 => u32::MAX - u32::from(input.byte()),
        _ => 0x1_0000 - u32::from(input.byte()),
    };
    let acpi = input.one_in(8);
    // A text may be much longer than an input.
    let times = if input.one_in(4) { 1 + usize::from(input.byte()) } else { 1 };
    let mut rest = Vec::new();
    while !input.is_over() {
        rest.push(input.byte());
    }
    let text = String::from_utf8_lossy(&rest).repeat(times);
    GUEST.with_borrow(|guest| guest.check(&text, devices, limit, acpi));
}

impl Guest {
    fn check(&self, text: &str, devices: usize, limit: u32, acpi: bool) {
        let pattern = [PATTERN; ROOM as usize + 0x1000];
        self.memory.write(GuestAddress(0x2_0000), &pattern).expect("it is RAM");
        self.image.set(&image(0x1000, &[(CMDLINE_SIZE, limit.into())]));
        let mut boot = Boot::linux(self.image.path()).cmdline(text);
        boot.discovery = if acpi { Discovery::Acpi } else { Discovery::Cmdline };
        let appended = if acpi { 0 } else { devices };
        let (kernel, init, open) = parse(text);
        let words = (0..appended).map(device).collect::<Vec<_>>();
        let limit = u64::from(limit).min(ROOM - 1);
        let len = text.len() as u64;
        // Spaces in front of devices are left out, so that a text that is too long may fit.
        let refused = text.contains('\0') || (len > limit && appended == 0) || (open && appended > 0);
        match load(&self.memory, &boot, 1, devices, 3 * len + 0x1000) {
            Err(error) => {
                check_refusal(&error);
                // Devices take room, too, and a space each.
                let all = len + words.iter().map(|word| word.len() as u64 + 1).sum::<u64>() + 1;
                assert!(refused || all > limit, "a command line of {len} bytes was refused: {error}");
            }
            Ok(_) => {
                assert!(!refused, "a command line of {len} bytes was taken, and should be refused");
                let written = self.written(limit);
                let (found, found_init, _) = parse(&written);
                let expected: Vec<_> = kernel.into_iter().chain(words).collect();
                assert_eq!((found, found_init), (expected, init), "what a kernel makes of {written:?}");
                assert!(acpi || devices > 0 || written == text, "{text:?} became {written:?}");
            }
        }
    }

    /// The text where the kernel is told that it is, which ends with a NUL; behind it nothing is written.
    fn written(&self, limit: u64) -> String {
        let mut page = vec![0; 0x1000];
        self.memory.read(GuestAddress(ZERO_PAGE), &mut page).expect("it is RAM");
        let start = Fields(&page).word(0x228).expect("it is inside");
        assert_eq!(start, 0x2_0000, "where the command line is");
        let mut bytes = vec![0; ROOM as usize + 0x1000];
        self.memory.read(GuestAddress(start), &mut bytes).expect("it is RAM");
        let len = bytes.iter().position(|byte| *byte == 0).expect("it ends with a NUL");
        assert!(len as u64 <= limit, "{len} bytes were written, the kernel takes {limit}");
        assert!(bytes[len + 1..].iter().all(|byte| *byte == PATTERN), "bytes behind the NUL were written");
        bytes.truncate(len);
        String::from_utf8(bytes).expect("it is a text, as the caller's is")
    }
}

fn device(index: usize) -> String {
    let (gpa, gsi) = device_place(index);
    format!("virtio_mmio.device=4K@{:#x}:{gsi}", gpa.0)
}

/// What Linux makes of a command line (`parse_args` and `next_arg` in its sources): the words for the kernel, what is left to init,
/// each written in ASCII, and whether a quote is open at the end of the kernel's.
fn parse(text: &str) -> (Vec<String>, Option<String>, bool) {
    // As Linux's table of characters has it, where 0xa0 is a space.
    let is_space = |byte: &u8| matches!(byte, 9..=13 | 32 | 0xa0);
    let skip = |bytes: &[u8]| bytes.iter().take_while(|byte| is_space(byte)).count();
    let mut bytes = text.as_bytes();
    let mut words = Vec::new();
    loop {
        bytes = &bytes[skip(bytes)..];
        if bytes.is_empty() {
            return (words, None, false);
        }
        let mut quoted = false;
        let end = bytes.iter().position(|byte| {
            quoted ^= *byte == b'"';
            is_space(byte) && !quoted
        });
        let (word, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        // A quote at the beginning and one at the end do not count.
        let bare = match word.strip_prefix(b"\"") {
            Some(inner) => inner.strip_suffix(b"\"").unwrap_or(inner),
            None => word,
        };
        if quoted {
            words.push(word.escape_ascii().to_string());
            return (words, None, true);
        }
        if bare == b"--" {
            return (words, Some(rest[skip(rest)..].escape_ascii().to_string()), false);
        }
        words.push(word.escape_ascii().to_string());
        bytes = rest;
    }
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = |devices: u8, text: &str| Script::new().bytes(&[devices, 0, 0, 0]).bytes(text.as_bytes()).done();
    vec![
        ("usual", text(3, "console=ttyS0 root=/dev/vda ro quiet")),
        ("for-init", text(3, "quiet -- single --")),
        ("quoted", text(1, "dyndbg=\"a -- b\" x")),
        ("quoted-dashes", text(1, "a \"--\" b")),
        ("open-quote", text(1, "a=\"b")),
        ("vertical-tab", text(1, "quiet\u{b}--\u{b}x")),
        ("hard-space", text(1, "x\u{a0}y -- \u{e0} --")),
        ("nul", text(0, "a\0b")),
        ("empty", text(19, "")),
        ("long", Script::new().bytes(&[19, 3, 1, 0, 3, 255]).bytes(&[b'x'; 250]).done()),
        ("spaces", Script::new().bytes(&[2, 1, 154, 0, 3, 191, 32]).done()),
        ("limited", Script::new().bytes(&[1, 1, 40, 0, 0]).bytes(b"quiet").done()),
    ]
}
