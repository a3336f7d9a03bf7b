//! Guests of a few instructions, run by KVM: the registers are those that the protocol promises, and KVM accepts them.

use super::images::{Files, Part, elf, note};
use super::*;
use crate::arch::x86_64::{KVM_IDENTITY_MAP, KVM_TSS, memory_layout, setup_vcpu};
use crate::kvm::{Kvm, VcpuExit};

const START: u64 = 0x10_0000;
/// `mov $0x18, %eax; mov %eax, %ds; mov $0x3f8, %dx`, the same bytes in 32-bit and in 64-bit mode.
const RELOAD_DS: &[u8] = &[0xb8, 0x18, 0, 0, 0, 0x8e, 0xd8, 0x66, 0xba, 0xf8, 0x03];
/// `out %al, %dx; ud2`, which without an IDT is a triple fault.
const WRITE_AND_END: &[u8] = &[0xee, 0x0f, 0x0b];

/// The byte that the guest writes to the serial port, or `None` if there is no KVM.
fn written_by(program: &[u8], notes: &[u8], vcpus: u32) -> Option<u8> {
    let kvm = Kvm::open().ok()?;
    let files = Files::new();
    let program = [RELOAD_DS, program, WRITE_AND_END].concat();
    let image = elf(START, &[Part::load(START, &program), Part::notes(notes)]);
    let memory = GuestMemory::anonymous(&memory_layout(16 << 20)).unwrap();
    let platform = Platform { vcpus, ..Platform::default() };
    let entry = load_files(&memory, &Boot::linux(files.write("guest", &image)), &platform).unwrap();

    let vm = kvm.create_vm().unwrap();
    vm.add_memory(&memory).unwrap();
    vm.set_kvm_pages(KVM_TSS, KVM_IDENTITY_MAP).unwrap();
    vm.create_irqchip().unwrap();
    let supported = kvm.supported_cpuid().unwrap();
    let mut all: Vec<_> = (0..vcpus).map(|index| vm.create_vcpu(index).unwrap()).collect();
    all.iter().for_each(|vcpu| setup_vcpu(vcpu, &supported, vcpus, &entry).unwrap());
    let written = match all[0].run().unwrap() {
        VcpuExit::PioWrite { port: 0x3f8, data: &[byte], .. } => byte,
        exit => panic!("{exit:?}"),
    };
    assert!(matches!(all[0].run().unwrap(), VcpuExit::Shutdown));
    Some(written)
}

#[track_caller]
#[allow(clippy::print_stderr, reason = "says why it was skipped")]
fn assert_written(written: Option<u8>, expected: u8) {
    match written {
        Some(byte) => assert_eq!(byte, expected),
        None => eprintln!("skipped: no usable KVM"),
    }
}

#[test]
fn the_64_bit_protocol_hands_over_the_zero_page() {
    // mov 0x202(%rsi), %al: the first byte of the header's magic.
    assert_written(written_by(&[0x8a, 0x86, 0x02, 0x02, 0, 0], &[], 1), b'H');
}

#[test]
fn the_64_bit_protocol_maps_the_last_page_below_4_gib() {
    // mov $0xfee00030, %eax; mov (%rax), %al: the LAPIC's version.
    assert_written(written_by(&[0xb8, 0x30, 0, 0xe0, 0xfe, 0x8a, 0x00], &[], 1), 0x14);
}

#[test]
fn pvh_hands_over_the_start_info() {
    let notes = note(18, b"Xen\0", &(START as u32).to_le_bytes());
    // mov (%ebx), %al: the first byte of its magic.
    assert_written(written_by(&[0x8a, 0x03], &notes, 1), 0x78);
}

#[test]
fn every_vcpu_of_a_large_machine_can_be_set_up() {
    // mov $1, %eax; cpuid; mov $0x3f8, %dx; shr $16, %ebx; mov %bl, %al: how many logical processors there are.
    let program = [0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x66, 0xba, 0xf8, 0x03, 0xc1, 0xeb, 0x10, 0x88, 0xd8];
    assert_written(written_by(&program, &[], 64), 64);
}
