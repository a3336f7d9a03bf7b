//! What only ring 0 may do: model specific registers, and to halt for ever.
//!
//! The second processor does it, with a table of interrupts of its own that lets it go on behind an instruction that faults.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use super::memory;

/// Registers that are looked at: from here, up to there. The last pair ends the list.
#[unsafe(no_mangle)]
static mut SWEEP_RANGES: [[u32; 2]; 6] = [[0; 2]; 6];
/// Not 0 if they are written to as well, and instructions without a meaning executed.
#[unsafe(no_mangle)]
static SWEEP_WRITES: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static SWEEP_COUNT: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static SWEEP_FAULTS: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static SWEEP_HALTS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static sweep_gates: u8;
    static sweep_fault: u8;
    static sweep_fault_with_code: u8;
    pub fn sweep() -> !;
}

/// How far the sweep is.
pub struct Progress {
    pub registers: u64,
    pub faults: u64,
    /// It is over, and the processor halted with interrupts off.
    pub halts: bool,
}

pub fn progress() -> Progress {
    Progress {
        registers: SWEEP_COUNT.load(Ordering::SeqCst),
        faults: SWEEP_FAULTS.load(Ordering::SeqCst),
        halts: SWEEP_HALTS.load(Ordering::SeqCst) != 0,
    }
}

/// Before the second processor begins with [`sweep`]: `span` registers from each of the places where a processor, KVM or another
/// hypervisor has some.
pub fn prepare(span: u32, writes: bool) {
    let from = [0, 0x4000_0000, 0x4b56_4d00, 0xc000_0000, 0xc001_0000];
    for (place, from) in from.into_iter().enumerate() {
        // SAFETY: the other processor does not run yet.
        unsafe { SWEEP_RANGES[place] = [from, from + span] };
    }
    SWEEP_WRITES.store(writes.into(), Ordering::SeqCst);
    // An invalid instruction has no error code, a fault of protection has one.
    gate(6, (&raw const sweep_fault).addr() as u64);
    gate(13, (&raw const sweep_fault_with_code).addr() as u64);
}

/// An interrupt gate of ring 0 (Intel SDM, volume 3, section 7.14.1), with the code segment that the second processor has.
fn gate(vector: u64, handler: u64) {
    const CODE: u64 = 0x20;
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e00;
    let low = handler & 0xffff | CODE << 16 | PRESENT_INTERRUPT_GATE << 32 | (handler & 0xffff_0000) << 32;
    let at = (&raw const sweep_gates).addr() as u64 + vector * 16;
    memory::write(at, low);
    memory::write(at + 8, handler >> 32);
}

global_asm!(
    ".section .text.sweep, \"ax\"",
    ".globl sweep",
    "sweep:",
    "lidt [rip + sweep_gates_pointer]",
    "lea rsi, [rip + SWEEP_RANGES]",
    "2:",
    "mov r8d, [rsi]",
    "mov r9d, [rsi + 4]",
    "add rsi, 8",
    "cmp r8d, r9d",
    "je 5f",
    "3:",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, r8d",
    "rdmsr",
    "inc qword ptr [rip + SWEEP_COUNT]",
    "cmp dword ptr [rip + SWEEP_WRITES], 0",
    "je 4f",
    // All but what would take this processor its mode or its interrupt controller.
    "cmp r8d, 0x1b",
    "je 4f",
    "cmp r8d, 0xc0000080",
    "je 4f",
    "not eax",
    "mov ecx, r8d",
    "wrmsr",
    "4:",
    "inc r8d",
    "cmp r8d, r9d",
    "jb 3b",
    "jmp 2b",
    // Leaves of what the processor says of itself, also of hypervisors, with some of their parts.
    "5:",
    "xor r8d, r8d",
    "6:",
    "mov r9d, 8",
    "7:",
    "mov eax, r8d",
    "mov ecx, r9d",
    "cpuid",
    "dec r9d",
    "jns 7b",
    "add r8d, 0x10000001",
    "inc qword ptr [rip + SWEEP_COUNT]",
    "test r8d, 0x40",
    "jz 6b",
    // An instruction that is invalid for good; and one that nobody has given a meaning, which an emulator of instructions gives up on.
    "ud2",
    "cmp dword ptr [rip + SWEEP_WRITES], 0",
    "je 9f",
    ".byte 0x0f, 0x04",
    "9:",
    "mov qword ptr [rip + SWEEP_HALTS], 1",
    "cli",
    "8:",
    "hlt",
    "jmp 8b",
    "sweep_fault_with_code:",
    "add rsp, 8",
    "sweep_fault:",
    "inc qword ptr [rip + SWEEP_FAULTS]",
    // Every instruction that faults here has two bytes.
    "add qword ptr [rsp], 2",
    "iretq",
    ".section .data",
    ".balign 8",
    "sweep_gates_pointer:",
    ".word 32 * 16 - 1",
    ".quad sweep_gates",
    ".section .bss",
    ".balign 16",
    "sweep_gates: .skip 32 * 16",
    ".text",
);
