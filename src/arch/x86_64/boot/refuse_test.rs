//! Bad images: each is refused with an error that says what is wrong.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::images::{BzHeader, Files, Part, bzimage, elf, note};
use super::*;
use crate::error::ErrorKind;
use crate::memory::GuestAddress;

const MIB: u64 = 1 << 20;

fn memory(mib: u64) -> GuestMemory {
    GuestMemory::anonymous(&[(GuestAddress(0), mib << 20)]).unwrap()
}

fn refusal(boot: &Boot) -> String {
    let error = load_files(&memory(16), boot, &Platform { vcpus: 1, ..Platform::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BootImage);
    error.chain()
}

/// Asserts that a kernel with these bytes is refused by its name and in these words.
#[track_caller]
fn refused(image: &[u8], words: &str) {
    refused_by(BootProtocol::Auto, image, words);
}

#[track_caller]
fn refused_by(protocol: BootProtocol, image: &[u8], words: &str) {
    let files = Files::new();
    let path = files.write("the-kernel", image);
    let text = refusal(&Boot::linux(&path).protocol(protocol));
    let expected = format!("kernel {} {words}", path.display());
    assert!(text.starts_with(&expected), "\n     got: {text}\nexpected: {expected}");
}

fn text_at_1_mib() -> Part {
    Part::load(MIB, b"the text")
}

#[test]
fn files_that_are_none() {
    let files = Files::new();
    let missing = files.path("missing");
    let text = refusal(&Boot::linux(&missing));
    assert!(text.starts_with(&format!("cannot open kernel {}: No such file", missing.display())), "{text}");
    let text = refusal(&Boot::linux(files.path("")));
    assert!(text.ends_with("is a directory, allowed is a regular file"), "{text}");
    assert!(refusal(&Boot::linux("/dev/null")).ends_with("is a character device, allowed is a regular file"));
    refused(b"", "is empty");
}

#[test]
fn a_fifo_does_not_hang() {
    let files = Files::new();
    let fifo = files.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(refusal(&Boot::linux(&fifo)).ends_with("is a FIFO, allowed is a regular file"));
    let kernel = files.write("kernel", &elf(MIB, &[text_at_1_mib()]));
    assert!(refusal(&Boot::linux(kernel).initrd(&fifo)).contains("initrd"));
}

#[test]
fn a_symbolic_link_is_followed() {
    let files = Files::new();
    files.write("vmlinuz-1", &elf(MIB, &[text_at_1_mib()]));
    symlink("vmlinuz-1", files.path("vmlinuz")).unwrap();
    load_files(&memory(16), &Boot::linux(files.path("vmlinuz")), &Platform { vcpus: 1, ..Platform::default() })
        .unwrap();
}

#[test]
fn files_of_other_formats() {
    refused(
        b"#!/bin/sh\necho",
        "is neither a bzImage nor an ELF image: it is a text that starts with \"#!/bin/sh\\necho\"",
    );
    refused(&[0x1f, 0x8b, 8, 0], "is neither a bzImage nor an ELF image: it is compressed by gzip");
    refused(&[0, 1, 2], "is neither a bzImage nor an ELF image: it starts with the bytes [00, 01, 02]");
    refused(&[0x7f; 4096], "is neither a bzImage nor an ELF image");
}

#[test]
fn truncated_bzimages() {
    let image = bzimage(&BzHeader::default());
    refused(&image[..0x100], "is truncated: a bzImage has 518 bytes at least, this one 256");
    refused(&image[..0x220], "is truncated: its setup header ends at 0x26c, the file at 0x220");
    refused(&image[..0x300], "is truncated: its header promises 1024 bytes of setup and 4096 of kernel");
    refused(&image[..image.len() - 1], "is truncated: its header promises 1024 bytes of setup and 4096 of kernel");
}

#[test]
fn bzimages_that_cannot_be_entered() {
    let image = |header: BzHeader| bzimage(&header);
    refused(
        &image(BzHeader { version: 0x20a, ..BzHeader::default() }),
        "speaks version 2.10 of the boot protocol, needed is 2.12",
    );
    refused(&image(BzHeader { xloadflags: 2, ..BzHeader::default() }), "has no 64-bit entry point (xloadflags=0x2)");
    refused(&image(BzHeader { loadflags: 0, ..BzHeader::default() }), "is a zImage, which loads below 1 MiB");
    refused_by(BootProtocol::Pvh, &image(BzHeader::default()), "is a bzImage, which PVH cannot boot");
}

#[test]
fn bzimages_that_do_not_fit() {
    let image = |pref_address, init_size| bzimage(&BzHeader { pref_address, init_size, ..BzHeader::default() });
    refused(
        &image(0x80_0000, 0x80_0001),
        "unpacks itself to gpa=0x800000 to 0x1000001, so it needs 17 MiB of memory; the guest has 16 MiB",
    );
    refused(
        &image(0xc000_0000, 0x1000),
        "needs 4096 bytes at the preferred address 0xc0000000, allowed are 0x100000 to 0xc0000000",
    );
    refused(&image(u64::MAX, u32::MAX), "needs 4294967295 bytes at the preferred address 0xffffffffffffffff");
    refused(&image(0, 0x1000), "needs 4096 bytes at the preferred address 0x0");
}

#[test]
fn elf_images_for_other_machines() {
    let with = |offset: usize, byte| {
        let mut image = elf(MIB, &[text_at_1_mib()]);
        image[offset] = byte;
        image
    };
    refused(&with(4, 1), "is an ELF image of class 1, needed is 2 (64 bits)");
    refused(&with(5, 2), "is an ELF image of data encoding 2, needed is 1 (little-endian)");
    refused(&with(18, 183), "is an ELF image for machine 183, needed is 62 (x86_64)");
    refused(&with(54, 32), "has program headers of 32 bytes, needed are 56");
    refused(&with(32, 0), "has program headers at offset=0x0 len=0x38, which are not inside the file of 0x80 bytes");
    refused(&with(39, 0xff), "has program headers at offset=0xff00000000000040");
    refused(&with(57, 0xff), "has program headers at offset=0x40 len=0x37");
    refused(&elf(MIB, &[text_at_1_mib()])[..63], "is truncated: an ELF image has 64 bytes at least, this one 63");
}

#[test]
fn elf_segments_that_cannot_be_loaded() {
    refused(&elf(MIB, &[]), "has no segment to load");
    refused(&elf(MIB, &[Part::notes(b"")]), "has no segment to load");
    refused(
        &elf(MIB, &[Part { file_size: Some(9), ..text_at_1_mib() }]),
        "has a segment gpa=0x100000 with more bytes in the file (0x9) than in memory (0x8)",
    );
    let at = |start, len| elf(start, &[Part { memory_size: Some(len), ..Part::load(start, b"x") }]);
    refused(&at(0xf_ffff, 8), "has a segment gpa=0xfffff len=0x8, allowed are addresses from 0x100000 to 0xc0000000");
    refused(&at(u64::MAX, 8), "has a segment gpa=0xffffffffffffffff len=0x8, allowed are addresses from 0x100000");
    refused(&at(MIB, u64::MAX), "has a segment gpa=0x100000 len=0xffffffffffffffff");
    refused(&at(0xbfff_ffff, 2), "has a segment gpa=0xbfffffff len=0x2");
    refused(
        &at(MIB, 16 * MIB),
        "has a segment up to gpa=0x1100000, so it needs 17 MiB of memory; the guest has 16 MiB",
    );
}

#[test]
fn elf_segments_that_run_past_the_file() {
    let large = Part { file_size: Some(0x1000), memory_size: Some(0x1000), ..text_at_1_mib() };
    refused(
        &elf(MIB, &[large]),
        "is truncated: its segment offset=0x78 len=0x1000 runs past the end of the file at 0x80",
    );
    let wrapping = Part { offset: Some(u64::MAX), ..text_at_1_mib() };
    refused(&elf(MIB, &[wrapping]), "is truncated: its segment offset=0xffffffffffffffff len=0x8");
}

#[test]
fn elf_segments_that_overlap() {
    let parts = [Part::load(MIB + 7, b"later"), text_at_1_mib()];
    refused(&elf(MIB, &parts), "has segments that overlap: gpa=0x100000 to 0x100008 and gpa=0x100007 to 0x10000c");
}

#[test]
fn elf_entry_points_outside_of_the_segments() {
    for entry in [0, MIB - 1, MIB + 8, u64::MAX] {
        let words = format!("has its entry point at {entry:#x}, outside of the segments that it loads");
        refused(&elf(entry, &[text_at_1_mib()]), &words);
    }
    let notes = note(18, b"Xen\0", &0x30_0000u32.to_le_bytes());
    refused(&elf(MIB, &[text_at_1_mib(), Part::notes(&notes)]), "has its entry point at 0x300000, outside of");
}

#[test]
fn pvh_without_its_note() {
    let refused_pvh = |notes: &[u8]| {
        let image = elf(MIB, &[text_at_1_mib(), Part::notes(notes)]);
        refused_by(BootProtocol::Pvh, &image, "has no PVH note, so it cannot be booted by PVH");
    };
    refused_pvh(&[]);
    refused_pvh(&note(18, b"GNU\0", &[0; 4]));
    refused_pvh(&note(17, b"Xen\0", &[0; 4]));
}

#[test]
fn notes_that_run_past_their_segment() {
    let with = |notes: &[u8]| elf(MIB, &[text_at_1_mib(), Part::notes(notes)]);
    let long = |name: u32, desc: u32| [name, desc, 18].map(u32::to_le_bytes).concat();
    refused(
        &with(&long(4, 0)),
        "has a note at offset 0x0 of its note segment that runs past the segment's end at 0xc: name_len=0x4 desc_len=0x0",
    );
    refused(&with(&long(0, 1)), "has a note at offset 0x0 of its note segment that runs past the segment's end");
    refused(&with(&long(u32::MAX, u32::MAX)), "has a note at offset 0x0 of its note segment");
    let second = [note(1, b"GNU\0", b"abcd"), long(4, 4)].concat();
    refused(&with(&second), "has a note at offset 0x14 of its note segment that runs past the segment's end at 0x20");
    refused(&with(&note(18, b"Xen\0", b"abc")), "has a PVH note of 3 bytes, needed are 4");
    refused(&with(&note(18, b"Xen\0", &[0, 0, 0, 0, 1])), "has a PVH note with an entry point past 4 GiB");
    let past_file = Part { file_size: Some(0x1000), ..Part::notes(b"") };
    refused(
        &elf(MIB, &[text_at_1_mib(), past_file]),
        "has a note segment offset=0xb8 len=0x1000 that runs past the end",
    );
    let huge = Part { offset: Some(0), ..Part::notes(&vec![0; 2 << 20]) };
    refused(&elf(MIB, &[text_at_1_mib(), huge]), "has note segments of more than 1048576 bytes");
}

#[test]
fn bad_notes_do_not_matter_if_the_caller_asks_for_another_protocol() {
    let files = Files::new();
    let path = files.write("vmlinux", &elf(MIB, &[text_at_1_mib(), Part::notes(&[0xff; 64])]));
    let boot = Boot::linux(path).protocol(BootProtocol::Linux64);
    load_files(&memory(16), &boot, &Platform { vcpus: 1, ..Platform::default() }).unwrap();
}

#[test]
fn initrds() {
    let files = Files::new();
    let kernel = Boot::linux(files.write("kernel", &bzimage(&BzHeader::default())));
    let with = |path: &Path| refusal(&kernel.clone().initrd(path));
    let missing = files.path("missing");
    assert!(with(&missing).starts_with(&format!("cannot open initrd {}: No such file", missing.display())));
    assert!(with(&files.path("")).ends_with("is a directory, allowed is a regular file"));
    let empty = files.write("empty", b"");
    assert_eq!(with(&empty), format!("initrd {} is empty", empty.display()));
    // 2 MiB for the kernel's start, 3 pages for the kernel, the initrd.
    let large = files.write("large", &vec![1; 14 << 20]);
    let text = with(&large);
    let words = "has 14680064 bytes and the kernel ends at gpa=0x203000, so it needs 17 MiB of memory with the initrd";
    assert!(text.contains(words), "{text}");
    std::fs::File::create(files.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    let text = with(&files.path("sparse"));
    assert!(text.contains("has 1099511627776 bytes, allowed are 2145374208: it must lie between"), "{text}");
}

#[test]
fn a_kernel_that_is_too_large_says_what_it_needs_with_its_initrd() {
    let files = Files::new();
    let header = BzHeader { init_size: 20 << 20, ..BzHeader::default() };
    let boot = Boot::linux(files.write("kernel", &bzimage(&header))).initrd(files.write("initrd", &vec![1; 3 << 20]));
    let text = refusal(&boot);
    assert!(text.ends_with("so it needs 25 MiB of memory with the initrd; the guest has 16 MiB"), "{text}");
}

#[test]
fn command_lines() {
    let files = Files::new();
    let kernel = Boot::linux(files.write("kernel", &elf(MIB, &[text_at_1_mib()])));
    let short = Boot::linux(files.write("short", &bzimage(&BzHeader { cmdline_size: 9, ..BzHeader::default() })));
    let with = |boot: &Boot, text: String| refusal(&boot.clone().cmdline(text));
    assert_eq!(with(&kernel, "a".repeat(2048)), "the command line has 2048 bytes; allowed are 2047");
    assert_eq!(with(&short, "a".repeat(10)), "the command line has 10 bytes; allowed are 9");
    assert_eq!(with(&kernel, "quiet\0".into()), "the command line has a NUL at byte 5, allowed is none");
    let fits = kernel.clone().cmdline("a".repeat(2047));
    load_files(&memory(16), &fits, &Platform { vcpus: 1, ..Platform::default() }).unwrap();
}

#[test]
fn devices_that_make_the_command_line_too_long_are_named() {
    let files = Files::new();
    let kernel = Boot::linux(files.write("kernel", &elf(MIB, &[text_at_1_mib()])));
    let boot = kernel.cmdline("a".repeat(2040)).discovery(Discovery::Cmdline);
    let devices = [crate::arch::x86_64::mmio_device(0)];
    let error =
        load_files(&memory(16), &boot, &Platform { vcpus: 1, devices: &devices, ..Platform::default() }).unwrap_err();
    assert_eq!(error.to_string(), "the command line has 2075 bytes, 35 of them for devices; allowed are 2047");
}

#[test]
fn memory_that_does_not_start_at_0_is_refused() {
    let files = Files::new();
    let boot = Boot::linux(files.write("kernel", &elf(MIB, &[text_at_1_mib()])));
    for region in [(GuestAddress(0), 0xf_f000), (GuestAddress(MIB), MIB)] {
        let memory = GuestMemory::anonymous(&[region]).unwrap();
        let error = load_files(&memory, &boot, &Platform { vcpus: 1, ..Platform::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
