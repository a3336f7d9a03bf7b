//! Good images: where everything ends up, and what the kernel finds.

use super::images::{BzHeader, Files, PATTERN, PAYLOAD, Part, bytes, bzimage, elf, memory, note, u32_at, u64_at};
use super::*;
use crate::arch::x86_64::layout::mmio_device;
use crate::memory::GuestAddress;

const ENTRY_NOTE: u32 = 18;

fn platform() -> Platform<'static> {
    Platform { vcpus: 2, ..Platform::default() }
}

fn small_elf(notes: &[u8]) -> Vec<u8> {
    let text = Part { memory_size: Some(0x3000), ..Part::load(0x10_0000, b"the text") };
    elf(0x10_0004, &[text, Part::load(0x20_0000, b"the data"), Part::notes(notes)])
}

#[test]
fn an_elf_image_is_loaded_byte_by_byte_and_entered_in_long_mode() {
    let files = Files::new();
    let memory = memory(16);
    let boot = Boot::linux(files.write("vmlinux", &small_elf(&[]))).cmdline("quiet");
    let entry = load_files(&memory, &boot, &platform()).unwrap();
    assert_eq!(entry, Entry { address: GuestAddress(0x10_0004), handover: Handover::Linux64 });
    assert_eq!(bytes(&memory, 0x10_0000, 9), [b"the text".as_slice(), &[PATTERN]].concat());
    assert_eq!(bytes(&memory, 0x1f_ffff, 10), [&[PATTERN], b"the data".as_slice(), &[PATTERN]].concat());
    assert_eq!(bytes(&memory, 0x2_0000, 7), b"quiet\0\xa5");
    // Zero page: magic, loader, command line, no initrd, RSDP.
    assert_eq!(bytes(&memory, 0x7202, 4), b"HdrS");
    assert_eq!(bytes(&memory, 0x7210, 1), [0xff]);
    assert_eq!((u32_at(&memory, 0x7228), u32_at(&memory, 0x7218)), (0x2_0000, 0));
    assert_eq!(u64_at(&memory, 0x7070), 0xe_0000);
    assert_eq!(bytes(&memory, 0xe_0000, 8), b"RSD PTR ");
    assert_eq!(bytes(&memory, 0xf_ffff, 1), [PATTERN]);
}

#[test]
fn holes_of_an_image_are_not_written_and_all_else_is() {
    const LEN: usize = 1 << 20;
    let mut text = vec![0; LEN];
    (text[5], text[LEN - 1]) = (1, 2);
    let image = elf(0x10_0000, &[Part::load(0x10_0000, &text)]);
    let headers = image.len() - LEN;
    let (files, memory) = (Files::new(), memory(16));
    let path = files.write("vmlinux", &image[..headers + 6]);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], image.len() as u64 - 1).unwrap();
    load_files(&memory, &Boot::linux(path), &platform()).unwrap();
    let found = bytes(&memory, 0x10_0000, LEN);
    // A file system without holes gives zeros.
    let middle = found[LEN / 2];
    assert!(middle == PATTERN || middle == 0, "{middle:#x}");
    for (at, (found, expected)) in found.iter().zip(&text).enumerate() {
        assert!(found == expected || (*expected == 0 && *found == PATTERN), "{at:#x}: {found:#x}");
    }
    assert_eq!(bytes(&memory, 0x10_0000 + LEN as u64, 1), [PATTERN]);
}

#[test]
fn the_zero_page_has_the_memory_map() {
    let files = Files::new();
    let memory = memory(16);
    load_files(&memory, &Boot::linux(files.write("vmlinux", &small_elf(&[]))), &platform()).unwrap();
    assert_eq!(bytes(&memory, 0x71e8, 1), [3]);
    let entry = |index: u64| {
        let at = 0x72d0 + index * 20;
        (u64_at(&memory, at), u64_at(&memory, at + 8), u32_at(&memory, at + 16))
    };
    assert_eq!(entry(0), (0, 0x9_fc00, 1));
    assert_eq!(entry(1), (0x9_fc00, 0x6_0400, 2));
    assert_eq!(entry(2), (0x10_0000, 15 << 20, 1));
}

#[test]
fn an_elf_image_with_the_note_is_entered_by_pvh_unless_the_caller_says_otherwise() {
    let files = Files::new();
    let notes = [note(1, b"GNU\0", b"abc"), note(ENTRY_NOTE, b"Xen\0", &0x20_0000u64.to_le_bytes())].concat();
    let path = files.write("vmlinux", &small_elf(&notes));
    let enter = |protocol| load_files(&memory(16), &Boot::linux(&path).protocol(protocol), &platform()).unwrap();
    let pvh = Entry { address: GuestAddress(0x20_0000), handover: Handover::Pvh };
    assert_eq!(enter(BootProtocol::Auto), pvh);
    assert_eq!(enter(BootProtocol::Pvh), pvh);
    assert_eq!(enter(BootProtocol::Linux64), Entry { address: GuestAddress(0x10_0004), handover: Handover::Linux64 });
}

#[test]
fn the_start_info_points_to_command_line_initrd_tables_and_memory() {
    let files = Files::new();
    let memory = memory(16);
    let notes = note(ENTRY_NOTE, b"Xen\0", &0x10_0000u32.to_le_bytes());
    let boot = Boot::linux(files.write("vmlinux", &small_elf(&notes))).initrd(files.write("initrd", b"an initrd"));
    load_files(&memory, &boot.cmdline("quiet"), &platform()).unwrap();
    assert_eq!((u32_at(&memory, 0x6000), u32_at(&memory, 0x6004)), (0x336e_c578, 1));
    assert_eq!(u32_at(&memory, 0x600c), 1);
    let (modules, map) = (u64_at(&memory, 0x6010), u64_at(&memory, 0x6028));
    assert_eq!((u64_at(&memory, 0x6018), u64_at(&memory, 0x6020)), (0x2_0000, 0xe_0000));
    let initrd = u64_at(&memory, modules);
    assert_eq!((initrd, u64_at(&memory, modules + 8)), ((16 << 20) - 0x1000, 9));
    assert_eq!(bytes(&memory, initrd, 10), b"an initrd\xa5");
    assert_eq!(u32_at(&memory, 0x6030), 3);
    assert_eq!((u64_at(&memory, map + 48), u64_at(&memory, map + 56)), (0x10_0000, 15 << 20));
    assert_eq!(u32_at(&memory, map + 64), 1);
    assert_eq!(bytes(&memory, map + 72, 1), [PATTERN]);
}

#[test]
fn a_bzimage_is_loaded_at_its_preferred_address() {
    let files = Files::new();
    let memory = memory(16);
    let image = bzimage(&BzHeader::default());
    let boot = Boot::linux(files.write("vmlinuz", &image)).initrd(files.write("initrd", &[1; 0x1001]));
    let entry = load_files(&memory, &boot, &platform()).unwrap();
    assert_eq!(entry, Entry { address: GuestAddress(0x20_0200), handover: Handover::Linux64 });
    assert_eq!(bytes(&memory, 0x20_0000, PAYLOAD), image[1024..]);
    assert_eq!(bytes(&memory, 0x20_0000 + PAYLOAD as u64, 1), [PATTERN]);
    // The header is the image's own, the initrd two pages below the end of memory.
    assert_eq!(bytes(&memory, 0x7236, 2), [1, 0]);
    assert_eq!((u32_at(&memory, 0x7218), u32_at(&memory, 0x721c)), ((16 << 20) - 0x2000, 0x1001));
}

#[test]
fn an_initrd_stays_below_the_kernels_limit() {
    let files = Files::new();
    let memory = memory(16);
    let header = BzHeader { initrd_addr_max: 0x7f_ffff, ..BzHeader::default() };
    let boot = Boot::linux(files.write("vmlinuz", &bzimage(&header))).initrd(files.write("initrd", &[1; 0x1000]));
    load_files(&memory, &boot, &platform()).unwrap();
    assert_eq!(u32_at(&memory, 0x7218), 0x7f_f000);
}

#[test]
fn kernel_and_initrd_may_fill_memory_to_the_last_page() {
    let files = Files::new();
    let header = BzHeader { init_size: 0xa0_0000, ..BzHeader::default() };
    let kernel = files.write("vmlinuz", &bzimage(&header));
    let fits = files.write("fits", &vec![1; 0x40_0000]);
    assert!(load_files(&memory(16), &Boot::linux(&kernel).initrd(fits), &platform()).is_ok());
    let too_large = files.write("too-large", &vec![1; 0x40_0001]);
    let error = load_files(&memory(16), &Boot::linux(&kernel).initrd(too_large), &platform()).unwrap_err();
    assert!(error.to_string().ends_with("needs 17 MiB of memory with the initrd; the guest has 16 MiB"), "{error}");
}

#[test]
fn a_kernel_that_is_moved_by_its_alignment_has_room_there() {
    let files = Files::new();
    let header = BzHeader { pref_address: 0x10_0000, ..BzHeader::default() };
    let entry = load_files(&memory(16), &Boot::linux(files.write("vmlinuz", &bzimage(&header))), &platform()).unwrap();
    assert_eq!(entry.address, GuestAddress(0x20_0200));
    let header = BzHeader { relocatable: 0, ..header };
    let entry = load_files(&memory(16), &Boot::linux(files.write("vmlinuz", &bzimage(&header))), &platform()).unwrap();
    assert_eq!(entry.address, GuestAddress(0x10_0200));
}

#[test]
fn with_discovery_by_command_line_there_are_no_acpi_tables() {
    let files = Files::new();
    let memory = memory(16);
    let devices = [mmio_device(0), mmio_device(1)];
    let boot = Boot::linux(files.write("vmlinux", &small_elf(&[]))).cmdline("quiet -- single");
    let boot = boot.discovery(Discovery::Cmdline);
    load_files(&memory, &boot, &Platform { vcpus: 1, devices: &devices, ..Platform::default() }).unwrap();
    let text = b"quiet virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 -- single\0\xa5";
    assert_eq!(bytes(&memory, 0x2_0000, text.len()), text);
    assert_eq!(u64_at(&memory, 0x7070), 0);
    assert!(bytes(&memory, 0xe_0000, 0x1_0000).iter().all(|byte| *byte == PATTERN));
    assert_eq!(bytes(&memory, 0xf_0000, 4), b"_MP_");
    // The code at the reset vector is always there, so that a jump to the firmware resets.
    assert_eq!(bytes(&memory, 0xf_fff0, 6), [0xba, 0x02, 0x06, 0xb0, 0x01, 0xee]);
}

#[test]
fn memory_above_the_gap_is_in_the_map_too() {
    let files = Files::new();
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 16 << 20), (GuestAddress(1 << 32), 1 << 20)]).unwrap();
    load_files(&memory, &Boot::linux(files.write("vmlinux", &small_elf(&[]))), &platform()).unwrap();
    assert_eq!(bytes(&memory, 0x71e8, 1), [4]);
    assert_eq!((u64_at(&memory, 0x72d0 + 60), u64_at(&memory, 0x72d0 + 68)), (1 << 32, 1 << 20));
}
