//! The second processor: started through the first one's local APIC, brought to user mode by the same way.
//!
//! It wakes in real mode below 1 MiB, so a few instructions are copied there; they go straight to long mode with the page
//! tables of the first processor, and from there to ring 3.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{clock, memory};

/// Where it begins: the page whose number the start-up interrupt carries.
const TRAMPOLINE: u64 = 0x8000;
const VECTOR: u32 = 8;
/// The local APIC's interrupt command (Intel SDM, volume 3, section 11.6.1).
const LOCAL_APIC: u64 = 0xfee0_0000;
const COMMAND_LOW: u64 = LOCAL_APIC + 0x300;
const COMMAND_HIGH: u64 = LOCAL_APIC + 0x310;
const INIT: u32 = 0x4500;
const START_UP: u32 = 0x4600;
/// Its number, since there are two.
const SECOND: u32 = 1 << 24;

unsafe extern "C" {
    static second_begin: u8;
    static second_end: u8;
}

/// What it runs, and by being taken back that it does.
#[unsafe(no_mangle)]
static SECOND_MAIN: AtomicU64 = AtomicU64::new(0);

/// Starts the second processor on `main`; says whether it came that far.
pub fn start(main: extern "C" fn() -> !) -> bool {
    SECOND_MAIN.store(main as usize as u64, Ordering::SeqCst);
    // SAFETY: the symbols are the ends of the code below, which is only read.
    let code = unsafe {
        let begin = &raw const second_begin;
        core::slice::from_raw_parts(begin, (&raw const second_end).addr() - begin.addr())
    };
    memory::copy_in(TRAMPOLINE, code);
    for command in [INIT, START_UP | VECTOR, START_UP | VECTOR] {
        memory::write(COMMAND_HIGH, SECOND);
        memory::write(COMMAND_LOW, command);
        clock::sleep_us(1000);
    }
    clock::wait_us(2_000_000, || SECOND_MAIN.load(Ordering::SeqCst) == 0)
}

global_asm!(
    ".section .text.second, \"ax\"",
    ".globl second_begin",
    ".globl second_end",
    ".code16",
    "second_begin:",
    // Over the pointer to the segments, which thus has a place that is known: 4 bytes in.
    ".byte 0xeb, 8, 0, 0",
    ".word 0x27",
    ".long second_segments",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    "lgdt [{AT} + 4]",
    // Physical address extension and SSE, the page tables, long mode, then paging and protection at once.
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
    // A far jump by its bytes, since assemblers disagree on how to write it: into the 64-bit segment.
    ".byte 0x66, 0xea",
    ".long {AT} + (second_long - second_begin)",
    ".word 0x20",
    ".code64",
    "second_long:",
    "mov rsp, offset second_stack_end",
    "push 0x08 | 3",
    "push offset second_stack_end",
    "push 0x3002",
    "push 0x10 | 3",
    "push offset second_user",
    "iretq",
    "second_end:",
    // In ring 3, and no longer copied.
    "second_user:",
    "mov eax, 0x08 | 3",
    "mov ds, eax",
    "mov es, eax",
    "xor ebp, ebp",
    "xor eax, eax",
    "xchg rax, [rip + SECOND_MAIN]",
    "call rax",
    "ud2",
    ".section .data",
    ".balign 8",
    // As those of the first processor, with a 64-bit code segment of ring 0 in the place of its task.
    "second_segments:",
    ".quad 0, 0x00cff3000000ffff, 0x00affb000000ffff, 0, 0x00af9b000000ffff",
    ".section .bss",
    ".balign 16",
    ".skip 16384",
    "second_stack_end:",
    ".text",
    AT = const TRAMPOLINE,
);
