//! Where kernel, initrd and memory map go in guests of any size, against a model of the layout.

use std::cell::OnceCell;

use vmcell::testing::rooms::memory_layout;
use vmcell::{Boot, Discovery, GuestAddress, GuestMemory};

use super::bzimage::{CMDLINE_SIZE, INITRD_MAX, UNPACKED, image};
use super::{Fields, GAP, HIGH, Image, check_refusal, load};
use crate::input::{Input, Script};

const PAGE: u64 = 0x1000;
const ZERO_PAGE: u64 = 0x7000;
const KERNEL_LEN: usize = 0x1000;
/// RAM that firmware would have: tables are there.
const RESERVED: (u64, u64) = (0x9_fc00, HIGH);
const ABOVE: u64 = 1 << 32;

thread_local! {
    static IMAGES: OnceCell<(Image, Image)> = const { OnceCell::new() };
}

/// Runs one input: a guest's size, what its kernel needs, an initrd, and how many CPUs and devices there are.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ram = size(&mut input).clamp(HIGH + PAGE, 6 << 30) & !(PAGE - 1);
    let unpacked = u32::try_from(size(&mut input)).unwrap_or(u32::MAX);
    let initrd_max = if input.one_in(2) { size(&mut input) as u32 } else { u32::MAX };
    let initrd = if input.one_in(4) { near(&mut input, ram) } else { input.word().into() };
    let (vcpus, devices) = (u32::from(input.byte() % 64) + 1, usize::from(input.below(20)));
    let acpi = input.one_in(2);
    // No more than what is copied soon.
    let len = initrd % (256 << 10);
    let kernel =
        image(KERNEL_LEN, &[(UNPACKED, unpacked.into()), (INITRD_MAX, initrd_max.into()), (CMDLINE_SIZE, 2047)]);
    IMAGES.with(|images| {
        let (file, disk) = images.get_or_init(Default::default);
        file.set(&kernel);
        let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8 + 1).collect();
        disk.set(&content);
        let mut boot = Boot::linux(file.path());
        boot.discovery = if acpi { Discovery::Acpi } else { Discovery::Cmdline };
        if len > 0 {
            boot = boot.initrd(disk.path());
        }
        let layout = memory_layout(ram);
        check_layout(&layout, ram);
        let memory = GuestMemory::anonymous(&layout).expect("the host provides the memory");
        let kernel_end = HIGH + u64::from(unpacked).max(KERNEL_LEN as u64);
        let place = place(ram, kernel_end, len, initrd_max);
        let images = kernel.len() as u64 + len;
        match (load(&memory, &boot, vcpus, devices, images), place) {
            (Ok(entry), Some(place)) => {
                assert_eq!(entry, HIGH + 0x200, "the entry point");
                check_memory(&memory, ram, place, &content);
            }
            (Err(error), None) => check_refusal(&error),
            (Ok(_), None) => panic!("{len} bytes have no place, and were loaded"),
            (Err(error), Some(place)) => panic!("{len} bytes have a place at {place:#x}, and were refused: {error}"),
        }
    });
}

/// RAM goes up to the gap for devices, and on behind it.
fn check_layout(layout: &[(GuestAddress, u64)], ram: u64) {
    let regions: Vec<(u64, u64)> = layout.iter().map(|(start, len)| (start.0, *len)).collect();
    let expected = if ram <= GAP { vec![(0, ram)] } else { vec![(0, GAP), (ABOVE, ram - GAP)] };
    assert_eq!(regions, expected, "the memory of a guest with {ram:#x} bytes");
}

/// The highest page at which an initrd ends in RAM that the kernel reaches; 0 if there is none to place.
fn place(ram: u64, kernel_end: u64, len: u64, most: u32) -> Option<u64> {
    let low = ram.min(GAP);
    if kernel_end > low {
        return None;
    }
    if len == 0 {
        return Some(0);
    }
    let start = low.min(u64::from(most) + 1).checked_sub(len)? / PAGE * PAGE;
    (start >= kernel_end).then_some(start)
}

fn check_memory(memory: &GuestMemory, ram: u64, place: u64, content: &[u8]) {
    let mut page = vec![0; PAGE as usize];
    memory.read(GuestAddress(ZERO_PAGE), &mut page).expect("it is RAM");
    let fields = Fields(&page);
    let len = content.len() as u64;
    assert_eq!((fields.word(0x218), fields.word(0x21c)), (Some(place), Some(len)), "the place of the initrd");
    let mut found = vec![0; content.len()];
    memory.read(GuestAddress(place), &mut found).expect("it is RAM");
    assert!(found == content, "the initrd is not what its file has");
    // Nothing else is up there.
    let behind = (place + len).next_multiple_of(PAGE) - (place + len);
    if len > 0 && behind > 0 {
        let mut rest = vec![1; behind as usize];
        memory.read(GuestAddress(place + len), &mut rest).expect("the rest of the page is RAM");
        assert!(rest.iter().all(|byte| *byte == 0), "bytes behind the initrd were written");
    }
    check_map(fields, ram);
}

/// The memory map has all RAM, in order, without what is reserved.
fn check_map(fields: Fields<'_>, ram: u64) {
    let count = u64::from(fields.bytes(0x1e8, 1).expect("it is inside")[0]);
    let entry = |number: u64| {
        let at = 0x2d0 + 20 * number;
        (fields.long(at).expect("inside"), fields.long(at + 8).expect("inside"), fields.word(at + 16).expect("inside"))
    };
    let found: Vec<_> = (0..count).map(entry).collect();
    let (start, end) = RESERVED;
    let mut expected = vec![(0, start, 1), (start, end - start, 2), (end, ram.min(GAP) - end, 1)];
    if ram > GAP {
        expected.push((ABOVE, ram - GAP, 1));
    }
    assert_eq!(found, expected, "the memory map of a guest with {ram:#x} bytes");
}

fn size(input: &mut Input) -> u64 {
    match input.below(4) {
        0 => u64::from(input.half()) << 12,
        1 => near(input, GAP),
        2 => near(input, ABOVE),
        _ => input.word().into(),
    }
}

/// About as much, to some pages and bytes.
fn near(input: &mut Input, size: u64) -> u64 {
    let pages = u64::from(input.byte()) * PAGE;
    let sum = if input.one_in(2) { size.saturating_add(pages) } else { size.saturating_sub(pages) };
    sum.saturating_sub(u64::from(input.byte() % 4))
}

/// Inputs that reach far.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let pages = |script: Script, pages: u16| script.bytes(&[0]).half(pages);
    let small = |ram, unpacked| pages(pages(Script::new(), ram), unpacked);
    let everything = |script: Script, len: u32| script.bytes(&[0, 0]).word(len).bytes(&[3, 19, 1]);
    vec![
        ("small", everything(small(1024, 16), 5000).done()),
        ("no-room", everything(small(257, 1), 5000).done()),
        ("just-fits", everything(small(260, 1), 3 << 12).done()),
        ("no-initrd", everything(small(300, 1), 0).done()),
        ("kernel-too-large", everything(small(300, 300), 0).done()),
        ("around-the-gap", everything(pages(Script::new().bytes(&[1, 1, 1, 0]), 16), 70000).done()),
        ("limited", pages(small(2048, 16).bytes(&[1]), 700).bytes(&[0]).word(9000).bytes(&[0, 0, 0]).done()),
    ]
}
