//! The state of vCPUs and chips as data: taken from one VM, given to another.

use vmcell::kvm::{ChipsState, Kvm, KvmVm, Registers, Vcpu, VcpuExit, VcpuState};
use vmcell::{ErrorKind, GuestAddress, GuestMemory};

const ENTRY: GuestAddress = GuestAddress(0x1000);
/// Where the guest counts.
const COUNT: GuestAddress = GuestAddress(0x2000);
const SERIAL: u16 = 0x3f8;

/// 16-bit code: counts in a register and in memory, and says each number.
const CODE: &[u8] = &[
    0xba, 0xf8, 0x03, //                   mov dx, 0x3f8
    0x40, //                         next: inc ax
    0xa3, 0x00, 0x20, //                   mov [0x2000], ax
    0xee, //                               out dx, al
    0xeb, 0xf9, //                         jmp next
];

struct Machine {
    vcpu: Vcpu,
    vm: KvmVm,
    memory: GuestMemory,
}

impl Machine {
    fn new(kvm: &Kvm) -> Self {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), 0x4000)]).unwrap();
        let vm = kvm.create_vm().unwrap();
        vm.add_memory(&memory).unwrap();
        vm.create_irqchip().unwrap();
        vm.create_pit().unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        Self { vcpu, vm, memory }
    }

    /// At the beginning of the program.
    fn begin(kvm: &Kvm) -> Self {
        let machine = Self::new(kvm);
        machine.memory.write(ENTRY, CODE).unwrap();
        machine.vcpu.set_cpuid(&kvm.supported_cpuid().unwrap()).unwrap();
        let mut special = machine.vcpu.special_registers().unwrap();
        (special.cs.base, special.cs.selector) = (0, 0);
        machine.vcpu.set_special_registers(&special).unwrap();
        machine.vcpu.reset_fpu().unwrap();
        machine.vcpu.set_registers(&Registers { rip: ENTRY.0, rflags: 2, ..Registers::default() }).unwrap();
        machine
    }

    /// Runs until the guest says a number.
    fn next(&mut self) -> u8 {
        loop {
            match self.vcpu.run().unwrap() {
                VcpuExit::PioWrite { port: SERIAL, data, .. } => return data[0],
                VcpuExit::Interrupted => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn save(&mut self, msrs: &[u32]) -> (VcpuState, ChipsState, Vec<u8>) {
        assert!(matches!(self.vcpu.finish_access().unwrap(), VcpuExit::Interrupted));
        let mut ram = vec![0; 0x4000];
        self.memory.read(GuestAddress(0), &mut ram).unwrap();
        (self.vcpu.state(msrs).unwrap(), self.vm.chips_state().unwrap(), ram)
    }

    fn restore(kvm: &Kvm, (vcpu, chips, ram): &(VcpuState, ChipsState, Vec<u8>)) -> Self {
        let machine = Self::new(kvm);
        machine.memory.write(GuestAddress(0), ram).unwrap();
        machine.vm.set_chips_state(chips).unwrap();
        machine.vcpu.set_state(vcpu).unwrap();
        machine
    }
}

/// Without what goes on by itself: the time-stamp counter, and clocks.
fn standing(mut state: VcpuState) -> VcpuState {
    const IA32_TSC: u32 = 0x10;
    state.msrs.retain(|(number, _)| *number != IA32_TSC);
    state
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_guest_goes_on_in_a_new_vm_from_where_it_was_saved_a_hundred_times() {
    let kvm = Kvm::open().unwrap();
    let msrs = kvm.msrs_to_save().unwrap();
    let mut machine = Machine::begin(&kvm);
    let mut said = 0u8;
    for round in 0..100u32 {
        for _ in 0..=round % 7 {
            said = said.wrapping_add(1);
            assert_eq!(machine.next(), said);
        }
        let saved = machine.save(&msrs);
        drop(machine);
        machine = Machine::restore(&kvm, &saved);
        let mut count = [0; 2];
        machine.memory.read(COUNT, &mut count).unwrap();
        assert_eq!(count[0], said);
    }
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn every_part_of_a_vcpu_comes_back_as_it_was_given() {
    let kvm = Kvm::open().unwrap();
    let msrs = kvm.msrs_to_save().unwrap();
    let mut machine = Machine::begin(&kvm);
    (0..3).for_each(|_| _ = machine.next());
    let (mut state, chips, ram) = machine.save(&msrs);
    state.registers.r15 = 0x1234_5678_9abc_def0;
    state.special_registers.cr2 = 0x2000;
    (state.debug_registers.dr0, state.debug_registers.dr3) = (0x1111, 0x3333);
    // XMM0, and that it is in use (Intel SDM, volume 1, sections 10.5.1 and 13.4.2).
    state.xsave[160..176].fill(0xa5);
    state.xsave[512] |= 2;
    state.events.nmi_masked = true;
    const KERNEL_GS_BASE: u32 = 0xc000_0102;
    let base = state.msrs.iter_mut().find(|(number, _)| *number == KERNEL_GS_BASE).unwrap();
    base.1 = 0xffff_8000_0000_1000;
    let other = Machine::restore(&kvm, &(state.clone(), chips.clone(), ram));
    assert_eq!(standing(other.vcpu.state(&msrs).unwrap()), standing(state));
    let back = other.vm.chips_state().unwrap();
    assert_eq!((&back.controllers, back.timer_flags), (&chips.controllers, chips.timer_flags));
    assert!(back.clock_ns >= chips.clock_ns, "{} {}", back.clock_ns, chips.clock_ns);
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_state_of_another_version_or_size_is_refused_by_what_is_wrong() {
    let kvm = Kvm::open().unwrap();
    let msrs = kvm.msrs_to_save().unwrap();
    let mut machine = Machine::begin(&kvm);
    machine.next();
    let (state, chips, _) = machine.save(&msrs);
    let refusal = |change: fn(&mut VcpuState)| {
        let mut state = state.clone();
        change(&mut state);
        let error = Machine::new(&kvm).vcpu.set_state(&state).unwrap_err();
        (error.kind(), error.to_string())
    };
    let invalid = |message: &str| (ErrorKind::InvalidConfig, message.to_owned());
    assert_eq!(refusal(|s| s.version = 2), invalid("the saved state of a vCPU has version 2, known is 1"));
    assert_eq!(
        refusal(|s| s.xsave.truncate(100)),
        invalid("the saved XSAVE area of a vCPU has 100 bytes, allowed are 4096")
    );
    assert_eq!(refusal(|s| s.lapic.clear()), invalid("the saved LAPIC of a vCPU has 0 bytes, allowed are 1024"));
    let xcrs = refusal(|s| s.xcrs = vec![(0, 1); 17]);
    assert_eq!(xcrs, invalid("a saved vCPU has 17 extended control registers, allowed are 16"));
    let (kind, message) = refusal(|s| s.msrs = vec![(0x10, 0), (0xdead, 7)]);
    assert_eq!((kind, message.as_str()), (ErrorKind::Kvm, "KVM refused the value 0x7 for MSR 0xdead"));
    let mut chips = chips;
    chips.controllers[2].pop();
    let error = machine.vm.set_chips_state(&chips).unwrap_err();
    assert_eq!(error.to_string(), "a saved interrupt controller has 511 bytes, allowed are 512");
}

#[test]
#[ignore = "needs /dev/kvm: cargo xtask test"]
fn a_counter_of_another_frequency_is_scaled_or_refused_by_both_frequencies() {
    let kvm = Kvm::open().unwrap();
    let mut machine = Machine::begin(&kvm);
    machine.next();
    let (mut state, ..) = machine.save(&kvm.msrs_to_save().unwrap());
    let khz = state.tsc_khz.unwrap();
    let asked = khz + khz / 2;
    state.tsc_khz = Some(asked);
    let other = Machine::new(&kvm);
    match other.vcpu.set_state(&state) {
        // By a CPU that can.
        Ok(()) => assert_eq!(other.vcpu.tsc_khz().unwrap(), asked),
        Err(error) => {
            let told = format!(
                "a time-stamp counter of {asked} kHz was asked for, allowed is only that of this host, which runs at {khz} kHz and \
                 which its CPU cannot scale"
            );
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidConfig, told));
        }
    }
}
