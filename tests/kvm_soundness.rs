//! Safe code reaches no memory of the host that it was not given, in whatever order it makes, uses and drops things.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::mpsc;

use vmcell::kvm::{Kvm, KvmVm, Registers, Vcpu, VcpuExit};
use vmcell::testing::{PATTERN, is_untouched, patterned_memory};
use vmcell::{ErrorKind, GuestAddress, GuestMemory, MemoryBacking, PageSize};

const CODE: GuestAddress = GuestAddress(0x1000);
const PAGE: u64 = 0x1000;
/// Where the guest writes. Real mode reaches it by a segment of 0x1000.
const DATA: GuestAddress = GuestAddress(0x1_0000);
const DATA_LEN: u64 = 0x1_0000;

/// 16-bit code that fills `DATA` and halts.
const FILL: &[u8] = &[
    0xb8, 0x00, 0x10, // mov ax, 0x1000
    0x8e, 0xc0, //       mov es, ax
    0x31, 0xff, //       xor di, di
    0xb9, 0xff, 0xff, // mov cx, 0xffff
    0xb0, b'!', //       mov al, '!'
    0xfc, //             cld
    0xf3, 0xaa, //       rep stosb
    0xf4, //             hlt
];

/// A VM whose memory is one page of code.
fn vm_with_code() -> KvmVm {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    let memory = GuestMemory::anonymous(&[(CODE, PAGE)]).unwrap();
    memory.write(CODE, FILL).unwrap();
    vm.add_memory(&memory).unwrap();
    vm
}

fn vcpu_at_code(vm: &KvmVm) -> Vcpu {
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut special = vcpu.special_registers().unwrap();
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_special_registers(&special).unwrap();
    vcpu.set_registers(&Registers { rip: CODE.0, rflags: 2, ..Registers::default() }).unwrap();
    vcpu
}

/// How many mappings of guest memory on memfd this process has.
fn memfd_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:vmcell-memory")).count()
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn memory_added_after_a_vcpu_was_made_stays_mapped_for_it() {
    let vm = vm_with_code();
    let mut vcpu = vcpu_at_code(&vm);
    let late = GuestMemory::anonymous(&[(DATA, DATA_LEN)]).unwrap();
    vm.add_memory(&late).unwrap();
    drop((vm, late));
    // The host gives the first of these the place of a mapping of that size that is gone.
    let others: Vec<_> = (0..8).map(|_| patterned_memory(DATA_LEN)).collect();
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::Halt));
    for (index, other) in others.iter().enumerate() {
        assert!(is_untouched(other, 0, DATA_LEN as usize), "the guest wrote to memory {index}, which is not its own");
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn memory_is_unmapped_with_the_last_vm_or_vcpu_that_can_reach_it() {
    let before = memfd_mappings();
    let vm = vm_with_code();
    let vcpus = [vm.create_vcpu(0).unwrap(), vm.create_vcpu(1).unwrap()];
    let kickers = vcpus.each_ref().map(Vcpu::kicker);
    let late = GuestMemory::map(&[(DATA, DATA_LEN)], MemoryBacking::Memfd, PageSize::Default).unwrap();
    vm.add_memory(&late).unwrap();
    drop((vm, late));
    let [first, second] = vcpus;
    drop(first);
    assert_eq!(memfd_mappings(), before + 1);
    drop(second);
    assert_eq!(memfd_mappings(), before);
    // A kicker without a vCPU does nothing.
    kickers.iter().for_each(|kicker| kicker.kick());
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn memory_of_which_a_region_is_refused_is_not_there_in_part() {
    let before = memfd_mappings();
    let vm = vm_with_code();
    let mut vcpu = vcpu_at_code(&vm);
    for _ in 0..3 {
        // The second region overlaps the code.
        let regions = [(GuestAddress(0), PAGE), (CODE, PAGE), (DATA, DATA_LEN)];
        let overlapping = GuestMemory::map(&regions, MemoryBacking::Memfd, PageSize::Default).unwrap();
        let error = vm.add_memory(&overlapping).unwrap_err();
        assert!(error.kind() == ErrorKind::Kvm && error.to_string().contains("gpa=0x1000"), "{error:?}");
        drop(overlapping);
        assert_eq!(memfd_mappings(), before, "nothing can reach it, so it is unmapped");
    }
    let VcpuExit::MmioWrite { gpa: DATA, data } = vcpu.run().unwrap() else { panic!("the guest has memory there") };
    assert_eq!(data, b"!");
    // The same place can be had still.
    let data = patterned_memory(DATA_LEN);
    let moved = GuestMemory::anonymous(&[(GuestAddress(0), PAGE), (DATA, DATA_LEN)]).unwrap();
    vm.add_memory(&moved).unwrap();
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::Halt));
    let mut byte = [PATTERN];
    moved.read(DATA.checked_add(DATA_LEN - 2).unwrap(), &mut byte).unwrap();
    assert_eq!(byte, *b"!");
    assert!(is_untouched(&data, 0, DATA_LEN as usize));
}

/// Runs its vCPU once more when it is dropped.
struct LastRun(Vcpu, mpsc::Sender<Option<ErrorKind>>);

impl Drop for LastRun {
    fn drop(&mut self) {
        let refused = self.0.run().err().map(|error| error.kind());
        self.1.send(refused).unwrap();
    }
}

thread_local! {
    static LAST_RUN: RefCell<Option<LastRun>> = const { RefCell::new(None) };
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_thread_that_is_ending_runs_no_vcpu() {
    let vm = vm_with_code();
    let vcpu = vcpu_at_code(&vm);
    let (sender, refused) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // The value that was used first is dropped last.
        LAST_RUN.with_borrow_mut(|last| {
            let last = &mut last.insert(LastRun(vcpu, sender)).0;
            assert!(matches!(last.run().unwrap(), VcpuExit::MmioWrite { .. }));
        });
    });
    thread.join().unwrap();
    assert_eq!(refused.recv().unwrap(), Some(ErrorKind::InvalidState));
}
