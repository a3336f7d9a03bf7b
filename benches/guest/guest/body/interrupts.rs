//! Sleep until a device interrupts.
//!
//! User mode has interrupts off, and may not halt: the attempt is a fault. Its handler in ring 0 halts instead, with interrupts
//! on; one that is already pending ends the halt at once. Where ring 0 is emulated, these few instructions cost more than the
//! request itself, under every monitor alike.

use core::arch::{asm, global_asm};

use super::machine::cmdline::Cmdline;
use super::machine::{memory, port};
use super::virtio::device::Device;

/// The I/O APIC (82093AA) and the local APIC (Intel SDM, volume 3, section 11.4).
const IO_APIC_SELECT: u64 = 0xfec0_0000;
const IO_APIC_DATA: u64 = 0xfec0_0010;
const IO_APIC_TABLE: u32 = 0x10;
const LOCAL_APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = LOCAL_APIC + 0xf0;
const END_OF_INTERRUPT: u64 = LOCAL_APIC + 0xb0;
const ENABLED_SPURIOUS_255: u32 = 0x1ff;

/// The mask registers of the 8259 pair.
const OLD_MASTER: u16 = 0x21;
const OLD_SLAVE: u16 = 0xa1;
const ALL_MASKED: u8 = 0xff;

const DEVICE_VECTOR: u8 = 0x40;
const GENERAL_PROTECTION: u8 = 13;
/// Where the task state segment has the stack for ring 0.
const TASK_STACK: u64 = 4;
/// A present interrupt gate, and the segment of ring 0's code.
const GATE: u8 = 0x8e;
const KERNEL_CODE: u16 = 0x28;

unsafe extern "C" {
    static bench_interrupts: u8;
    static bench_taken: u8;
    static bench_halt: u8;
    static bench_kernel_stack_end: u8;
    static guest_task: u8;
}

/// One device's interrupts.
pub struct Interrupts(());

impl Interrupts {
    /// Lets this device interrupt; `None` if the command line names no pin for it.
    pub fn of(cmdline: &Cmdline, device: Device) -> Option<Self> {
        let pin = pin_of(cmdline, device)?;
        set_gate(DEVICE_VECTOR, (&raw const bench_taken).addr() as u64);
        set_gate(GENERAL_PROTECTION, (&raw const bench_halt).addr() as u64);
        let stack = (&raw const bench_kernel_stack_end).addr();
        // The high half is zero already.
        memory::write((&raw const guest_task).addr() as u64 + TASK_STACK, stack as u32);
        // The old controllers get every interrupt, too, and must not pass them on.
        [OLD_MASTER, OLD_SLAVE].into_iter().for_each(|controller| port::write8(controller, ALL_MASKED));
        memory::write(SPURIOUS, ENABLED_SPURIOUS_255);
        // Edge-triggered, active high, to the first processor.
        for (register, value) in [(1, 0), (0, u32::from(DEVICE_VECTOR))] {
            memory::write(IO_APIC_SELECT, IO_APIC_TABLE + 2 * pin + register);
            memory::write(IO_APIC_DATA, value);
        }
        Some(Self(()))
    }

    /// Sleeps until there was an interrupt, which may have come before.
    pub fn wait(&self) {
        // SAFETY: the handlers keep every register, and have a stack of their own.
        unsafe { asm!("hlt") };
    }
}

/// By `virtio_mmio.device=SIZE@ADDRESS:PIN`.
fn pin_of(cmdline: &Cmdline, device: Device) -> Option<u32> {
    let index = cmdline.devices().position(|base| base == device.base)?;
    let text = cmdline.all("virtio_mmio.device").nth(index)?;
    text.split(':').nth(1)?.parse().ok()
}

fn set_gate(vector: u8, handler: u64) {
    let at = (&raw const bench_interrupts).addr() as u64 + u64::from(vector) * 16;
    memory::write(at, handler as u16);
    memory::write(at + 2, KERNEL_CODE);
    memory::write(at + 4, 0_u8);
    memory::write(at + 5, GATE);
    memory::write(at + 6, (handler >> 16) as u16);
    memory::write(at + 8, handler >> 32);
}

global_asm!(
    ".text",
    "bench_taken:",
    "push rax",
    "mov eax, {END_OF_INTERRUPT}",
    "mov dword ptr [rax], 0",
    "pop rax",
    "iretq",
    // Over the error code; then the address of the instruction is on top. Anything but a halt is a mistake.
    "bench_halt:",
    "add rsp, 8",
    "push rax",
    "mov rax, [rsp + 8]",
    "cmp byte ptr [rax], 0xf4",
    "jne 2f",
    "inc qword ptr [rsp + 8]",
    "pop rax",
    "sti",
    "hlt",
    "cli",
    "iretq",
    "2:",
    "ud2",
    ".section .bss",
    ".balign 16",
    ".skip 4096",
    "bench_kernel_stack_end:",
    ".text",
    END_OF_INTERRUPT = const END_OF_INTERRUPT,
);
