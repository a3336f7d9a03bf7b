//! The entries. Either sends the first byte by its first instructions, then goes on at the shared entry in long mode.
//!
//! PVH (Xen's `x86/pvh` boot protocol, which QEMU takes ELF images by) enters in protected mode without paging, with the
//! address of its start information in EBX. The shared entry wants Linux's zero page; only the command line's place in it is
//! looked at.

use core::arch::global_asm;

/// The serial port, and the first byte, which nothing else here prints.
const SERIAL: u16 = 0x3f8;
const FIRST_BYTE: u8 = 2;
/// Where the start information and the zero page say where the command line is.
const START_INFO_CMDLINE: u32 = 0x18;
const ZERO_PAGE_CMDLINE: u32 = 0x228;

global_asm!(
    ".section .note.pvh, \"a\", @note",
    ".balign 4",
    // XEN_ELFNOTE_PHYS32_ENTRY.
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long bench_pvh_entry",
    ".section .text.bench, \"ax\"",
    ".globl bench_linux_entry",
    "bench_linux_entry:",
    "mov edx, {SERIAL}",
    "mov eax, {FIRST}",
    "out dx, al",
    "lidt [rip + bench_interrupts_pointer]",
    "jmp _start",
    ".code32",
    "bench_pvh_entry:",
    "mov edx, {SERIAL}",
    "mov eax, {FIRST}",
    "out dx, al",
    "cli",
    "cld",
    "mov eax, [ebx + {START_INFO_CMDLINE}]",
    "mov [bench_zero_page + {ZERO_PAGE_CMDLINE}], eax",
    // A fault ends the guest, whatever the firmware left there; `interrupts` fills the table if it is asked to.
    "lidt [bench_interrupts_pointer]",
    // The first 2 MiB are enough to reach the shared entry, which maps the rest. 7 and 0x87: as there.
    "mov eax, offset guest_root + 0x1007",
    "mov [guest_root], eax",
    "add eax, 0x1000",
    "mov [guest_root + 0x1000], eax",
    "mov dword ptr [guest_root + 0x2000], 0x87",
    "mov eax, 0x620",
    "mov cr4, eax",
    "mov eax, offset guest_root",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "mov eax, 0x100",
    "xor edx, edx",
    "wrmsr",
    "mov eax, 0x80000013",
    "mov cr0, eax",
    "lgdt [bench_segments_pointer]",
    // A far jump by its bytes, since assemblers disagree on how to write it: into the 64-bit segment.
    ".byte 0xea",
    ".long bench_long",
    ".word 8",
    ".code64",
    "bench_long:",
    "xor eax, eax",
    "mov ss, eax",
    "mov ds, eax",
    "mov es, eax",
    "mov rsi, offset bench_zero_page",
    "jmp _start",
    ".section .data",
    ".balign 16",
    "bench_segments:",
    ".quad 0, 0x00af9b000000ffff",
    "bench_segments_pointer:",
    ".word 15",
    ".quad bench_segments",
    ".balign 8",
    "bench_interrupts_pointer:",
    ".word 4095",
    ".quad bench_interrupts",
    ".section .bss",
    ".balign 16",
    "bench_interrupts: .skip 4096",
    "bench_zero_page: .skip 4096",
    ".text",
    SERIAL = const SERIAL,
    FIRST = const FIRST_BYTE,
    START_INFO_CMDLINE = const START_INFO_CMDLINE,
    ZERO_PAGE_CMDLINE = const ZERO_PAGE_CMDLINE,
);
