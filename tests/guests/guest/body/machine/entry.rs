//! From the boot protocol's ring 0 to ring 3.
//!
//! Where KVM has no hardware to build on, ring 0 is emulated instruction by instruction, and ring 3 runs at full speed. So
//! as little as possible happens here: page tables that let ring 3 reach the first 4 GiB, segments, and a task state segment
//! with an I/O permission map that allows every port, since an emulator looks there whatever the I/O privilege level is.
//! Interrupts stay off, and there is no interrupt table: a fault ends the guest.

use core::arch::global_asm;

/// 2 MiB pages in four directories of 512.
const PAGES: u64 = 2048;
const PRESENT_WRITABLE_USER: u64 = 7;
const LARGE: u64 = 0x80;
/// Segments: code and data of ring 3, and the task state segment.
const USER_DATA: u64 = 0x08 | 3;
const USER_CODE: u64 = 0x10 | 3;
const TASK: u64 = 0x18;
/// I/O privilege level 3, interrupts off.
const FLAGS: u64 = 0x3002;
/// The task state segment and its I/O map behind it, which ends with a byte of ones.
const TASK_LIMIT: u64 = 104 + 8192;

global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl _start",
    "_start:",
    "cli",
    "lea rsp, [rip + guest_stack_end]",
    "mov r12, rsi",
    // The compiler uses SSE: no emulation, monitor the coprocessor; FXSAVE and SSE exceptions.
    "mov rax, cr0",
    "and rax, -5",
    "or rax, 2",
    "mov cr0, rax",
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    // Page tables.
    "lea rdi, [rip + guest_directories]",
    "mov rax, {LARGE} | {USER}",
    "mov ecx, {PAGES} / 2",
    "2:",
    "mov [rdi], rax",
    "add rax, 0x200000",
    "mov [rdi + 8], rax",
    "add rax, 0x200000",
    "add rdi, 16",
    "dec ecx",
    "jnz 2b",
    "lea rax, [rip + guest_directories + {USER}]",
    "lea rdi, [rip + guest_pointers]",
    "mov [rdi], rax",
    "add rax, 0x1000",
    "mov [rdi + 8], rax",
    "add rax, 0x1000",
    "mov [rdi + 16], rax",
    "add rax, 0x1000",
    "mov [rdi + 24], rax",
    "add rdi, {USER}",
    "lea rax, [rip + guest_root]",
    "mov [rax], rdi",
    "mov cr3, rax",
    // Segments. The task state segment lies below 16 MiB, so that the high byte of its address is zero.
    "lea rax, [rip + guest_task]",
    "mov word ptr [rax + 102], 104",
    "mov byte ptr [rax + {LIMIT}], 0xff",
    "shl rax, 16",
    "mov rcx, 0x0000890000000000 | {LIMIT}",
    "or rax, rcx",
    "lea rdi, [rip + guest_segments]",
    "mov [rdi + 0x18], rax",
    "lgdt [rip + guest_segments_pointer]",
    "mov eax, {TASK}",
    "ltr ax",
    // Into ring 3.
    "push {USER_DATA}",
    "lea rax, [rip + guest_stack_end]",
    "push rax",
    "push {FLAGS}",
    "push {USER_CODE}",
    "lea rax, [rip + guest_user]",
    "push rax",
    "iretq",
    "guest_user:",
    "mov eax, {USER_DATA}",
    "mov ds, eax",
    "mov es, eax",
    "mov rdi, r12",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    ".section .data",
    ".balign 16",
    "guest_segments:",
    // The last two are code and data of ring 0, for a guest that takes interrupts.
    ".quad 0, 0x00cff3000000ffff, 0x00affb000000ffff, 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "guest_segments_pointer:",
    ".word 55",
    ".quad guest_segments",
    ".section .bss",
    ".balign 4096",
    ".globl guest_root",
    "guest_root: .skip 4096",
    "guest_pointers: .skip 4096",
    "guest_directories: .skip 4 * 4096",
    "guest_task: .skip {LIMIT} + 1",
    ".balign 4096",
    ".skip 65536",
    "guest_stack_end:",
    ".text",
    PAGES = const PAGES,
    LARGE = const LARGE,
    USER = const PRESENT_WRITABLE_USER,
    USER_DATA = const USER_DATA,
    USER_CODE = const USER_CODE,
    TASK = const TASK,
    FLAGS = const FLAGS,
    LIMIT = const TASK_LIMIT,
    main = sym crate::body::main,
);
