//! The other processors: started through the first one's local APIC, brought to user mode by the same way.
//!
//! Each wakes in real mode below 1 MiB, so a few instructions are copied there; they go straight to long mode with the page
//! tables of the first processor, and from there to ring 3, or stay in ring 0.

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
/// Where the command has the number of the processor that it is for.
const NUMBER_SHIFT: u32 = 24;
/// The processors beside the first one have a stack each.
const OTHERS: u64 = 3;
const STACK: u64 = 16384;

unsafe extern "C" {
    static second_begin: u8;
    static second_end: u8;
    static second_stacks: u8;
}

/// What it runs, and by being taken back that it does.
#[unsafe(no_mangle)]
static SECOND_MAIN: AtomicU64 = AtomicU64::new(0);
/// Where its stack ends.
#[unsafe(no_mangle)]
static SECOND_STACK: AtomicU64 = AtomicU64::new(0);
/// Not 0 if it stays in ring 0.
#[unsafe(no_mangle)]
static SECOND_STAYS: AtomicU64 = AtomicU64::new(0);

/// Starts the second processor on `main`, in ring 3; says whether it came that far.
pub fn start(main: extern "C" fn() -> !) -> bool {
    start_one(1, false, main)
}

/// Does the same with the processor of this number, from 1 to 3.
pub fn start_number(number: u32, main: extern "C" fn() -> !) -> bool {
    start_one(number, false, main)
}

/// Starts the second processor in ring 0.
pub fn start_in_ring_0(main: extern "C" fn() -> !) -> bool {
    start_one(1, true, main)
}

fn start_one(number: u32, stays: bool, main: extern "C" fn() -> !) -> bool {
    // The symbol is an address alone.
    let stacks = (&raw const second_stacks).addr() as u64;
    SECOND_STACK.store(stacks + STACK * u64::from(number).min(OTHERS), Ordering::SeqCst);
    SECOND_STAYS.store(stays.into(), Ordering::SeqCst);
    SECOND_MAIN.store(main as usize as u64, Ordering::SeqCst);
    // SAFETY: the symbols are the ends of the code below, which is only read.
    let code = unsafe {
        let begin = &raw const second_begin;
        core::slice::from_raw_parts(begin, (&raw const second_end).addr() - begin.addr())
    };
    memory::copy_in(TRAMPOLINE, code);
    for command in [INIT, START_UP | VECTOR, START_UP | VECTOR] {
        memory::write(COMMAND_HIGH, number << NUMBER_SHIFT);
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
    "mov rbx, offset SECOND_STACK",
    "mov rbx, [rbx]",
    "mov rsp, rbx",
    "mov rax, offset SECOND_STAYS",
    "mov rdi, offset second_main",
    "cmp dword ptr [rax], 0",
    "jne 2f",
    "push 0x08 | 3",
    "push rbx",
    "push 0x3002",
    "push 0x10 | 3",
    "push offset second_user",
    "iretq",
    "2:",
    "jmp rdi",
    "second_end:",
    // In ring 3, and no longer copied.
    "second_user:",
    "mov eax, 0x08 | 3",
    "mov ds, eax",
    "mov es, eax",
    "second_main:",
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
    "second_stacks:",
    ".skip {OTHERS} * {STACK}",
    ".text",
    AT = const TRAMPOLINE,
    OTHERS = const OTHERS,
    STACK = const STACK,
);
