//! A PC, less what no kernel needs: PIC, IOAPIC and LAPICs, the interval timer, the first serial port, the keyboard
//! controller's reset line, the clock's ports, ACPI's sleep and reset registers, a power button, and the register for panics.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::parts::{Buses, PowerEvent, ResetCause, SerialPort};
use crate::arch;
use crate::bus::Bus;
use crate::config::{Boot, CpuConfig, Discovery, ForkClock};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{ChipsState, Counter, CpuidEntry, Kvm, KvmVm, Vcpu, VcpuState};
use crate::legacy::{
    Cmos, I8042, KeyboardAnswer, OutputBuffer, Panic, PanicEvent, Power, PowerRequest, PowerValues, Serial,
};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::{EventFd, random_bytes};

/// What KVM answered first. It depends on the host's CPUs and on how KVM was loaded, so it does not change while `/dev/kvm` is in use. KVM
/// executes CPUID for each leaf, which takes a third of a millisecond if the host is a guest itself.
static SUPPORTED: OnceLock<Vec<CpuidEntry>> = OnceLock::new();
/// The same of the model-specific registers that a snapshot has.
static SAVED_MSRS: OnceLock<Vec<u32>> = OnceLock::new();

/// A board that takes a number of vCPUs and an amount of memory, on the host that it was made for.
pub(crate) struct Board {
    vcpus: u32,
    memory_bytes: u64,
    /// What KVM and the host's CPU give the guest.
    supported: Vec<CpuidEntry>,
}

fn supported_cpuid(kvm: &Kvm) -> Result<Vec<CpuidEntry>> {
    if let Some(known) = SUPPORTED.get() {
        return Ok(known.clone());
    }
    let supported = kvm.supported_cpuid()?;
    Ok(SUPPORTED.get_or_init(|| supported).clone())
}

impl Board {
    /// # Errors
    /// `ErrorKind::InvalidConfig` for more memory than the host's CPU can address, and for a CPU that the host cannot give;
    /// `ErrorKind::Kvm` if KVM does not tell.
    pub(crate) fn new(kvm: &Kvm, vcpus: u32, cpu: &CpuConfig, memory_bytes: u64) -> Result<Self> {
        let supported = arch::limit_cpu(supported_cpuid(kvm)?, cpu)?;
        arch::check_memory_size(memory_bytes, &supported)?;
        Ok(Self { vcpus, memory_bytes, supported })
    }

    /// Where its RAM lies: for each region its first guest address and its length in bytes.
    pub(crate) fn memory_layout(&self) -> Vec<(GuestAddress, u64)> {
        arch::memory_layout(self.memory_bytes)
    }

    /// Gives a new VM its memory, the chips that KVM has itself, and its vCPUs.
    pub(crate) fn populate(&self, vm: &KvmVm, memory: &GuestMemory) -> Result<Vec<Vcpu>> {
        // Memory before the irqchip, the irqchip before the vCPUs: see `KvmVm`.
        vm.add_memory(memory)?;
        vm.set_kvm_pages(arch::KVM_TSS, arch::KVM_IDENTITY_MAP)?;
        vm.create_irqchip()?;
        vm.create_pit()?;
        (0..self.vcpus).map(|index| vm.create_vcpu(index)).collect()
    }

    /// Loads the kernel, tells it of `devices` virtio devices, and brings the vCPUs into the state in which it is entered.
    /// Takes as long as reading the images does.
    pub(crate) fn load(
        &self,
        memory: &GuestMemory,
        images: arch::Images,
        boot: &Boot,
        devices: usize,
        vcpus: &[Vcpu],
    ) -> Result<()> {
        let places: Vec<_> = (0..devices).map(arch::mmio_device).collect();
        let cpu = arch::cpu_identity(&self.supported);
        let platform = arch::Platform { vcpus: self.vcpus, cpu, devices: &places };
        let entry = arch::load(memory, images, boot, &platform)?;
        vcpus.iter().try_for_each(|vcpu| arch::setup_vcpu(vcpu, &self.supported, self.vcpus, &entry))
    }

    /// Where a guest that is booted so finds the identifier of its generation, if it is told of one.
    pub(crate) fn generation_id(boot: &Boot) -> Option<GuestAddress> {
        (boot.discovery == Discovery::Acpi).then_some(arch::GENERATION_ID)
    }

    /// Gives the guest, which does not run, an identifier that no other has.
    ///
    /// # Errors
    /// `ErrorKind::Host` if the host gives no random bytes.
    pub(crate) fn renew_generation(memory: &GuestMemory, place: GuestAddress) -> Result<()> {
        let mut identifier = [0; 16];
        random_bytes(&mut identifier).map_err(|e| {
            Error::new(ErrorKind::Host, "the host gives no random bytes for a VM's generation identifier")
                .with_source(e)
        })?;
        memory.write(place, &identifier)
    }

    /// Has the guest look at the identifier of its generation. When this returns, the interrupt waits for a vCPU.
    pub(crate) fn tell_generation(vm: &KvmVm) -> Result<()> {
        vm.set_irq_line(arch::GENERATION_GSI, true)?;
        vm.set_irq_line(arch::GENERATION_GSI, false)
    }

    /// What the guest is told of its CPUs here.
    pub(crate) fn offered_cpu(&self) -> Vec<CpuidEntry> {
        arch::offered_cpu(&self.supported, self.vcpus)
    }

    /// Refuses a guest that was told of CPUs that can do more.
    ///
    /// # Errors
    /// `ErrorKind::InvalidConfig` naming what is lacking.
    pub(crate) fn check_cpu(&self, told: &[CpuidEntry]) -> Result<()> {
        arch::check_cpu(told, &self.offered_cpu())
    }

    /// The model-specific registers that are saved.
    ///
    /// # Errors
    /// `ErrorKind::Kvm` if KVM does not tell.
    pub(crate) fn msrs_to_save(kvm: &Kvm) -> Result<&'static [u32]> {
        if let Some(known) = SAVED_MSRS.get() {
            return Ok(known);
        }
        let saved = kvm.msrs_to_save()?;
        Ok(SAVED_MSRS.get_or_init(|| saved))
    }

    /// Brings a machine that was populated, and has not run, to where another one was. Its memory has the other's content already.
    ///
    /// # Errors
    /// `ErrorKind::InvalidConfig` or `ErrorKind::Kvm` if it is a state of something else, or of another CPU.
    pub(crate) fn restore(
        vm: &KvmVm,
        vcpus: &[Vcpu],
        chips: &ChipsState,
        states: &[VcpuState],
        clock: ForkClock,
    ) -> Result<()> {
        let passed = match clock {
            ForkClock::Jump => chips.age(),
            ForkClock::Keep => Duration::ZERO,
        };
        vm.set_chips_state(&chips.later(passed))?;
        // How far ahead of the host's the counter of the first vCPU was, and is. The others differ from it as they did, to the cycle:
        // a guest that finds them out of step does not use them.
        let mut first = None;
        for (vcpu, state) in vcpus.iter().zip(states) {
            let differs = |(was, is): (u64, u64)| Some(state.tsc_offset?.wrapping_sub(was).wrapping_add(is));
            let counter = first.and_then(differs).map_or(Counter::Exact, Counter::Ahead);
            vcpu.set_state_and_counter(&state.later(passed), counter)?;
            first = first.or_else(|| state.tsc_offset.zip(vcpu.tsc_offset()));
            vcpu.note_pause();
        }
        Ok(())
    }

    /// Puts the chips on the buses that KVM leaves to us. `on_power` is called by the vCPU thread that asks.
    pub(crate) fn connect(
        &self,
        vm: &KvmVm,
        buses: &mut Buses,
        on_power: impl Fn(PowerEvent) + Clone + Send + Sync + 'static,
    ) -> Result<SerialPort> {
        let port = connect_ports(&mut buses.pio, on_power)?;
        vm.register_irqfd(port.serial.interrupt(), arch::COM1_GSI)?;
        Ok(port)
    }

    /// The power button that the ACPI tables describe: each signal of the event is a press.
    pub(crate) fn connect_power_button(&self, vm: &KvmVm) -> Result<EventFd> {
        let button = EventFd::new()?;
        vm.register_irqfd(&button, arch::POWER_BUTTON_GSI)?;
        Ok(button)
    }
}

/// What there is without KVM: the chips that are reached by ports.
pub(crate) fn connect_ports(
    ports: &mut Bus,
    on_power: impl Fn(PowerEvent) + Clone + Send + Sync + 'static,
) -> Result<SerialPort> {
    let keyboard = KeyboardAnswer::default();
    let port = connect_serial(ports, keyboard.clone())?;
    ports.insert(arch::CMOS_PORT.into(), arch::CMOS_PORTS.into(), Arc::new(Cmos))?;
    connect_panic(ports, on_power.clone())?;
    connect_power(ports, keyboard, on_power)?;
    Ok(port)
}

fn connect_serial(ports: &mut Bus, keyboard: KeyboardAnswer) -> Result<SerialPort> {
    let output = OutputBuffer::new()?;
    let serial = Arc::new(Serial::new(output.clone())?);
    ports.insert(arch::COM1_PORT.into(), arch::COM1_PORTS.into(), serial.clone())?;
    Ok(SerialPort { serial, output, keyboard })
}

fn connect_panic(ports: &mut Bus, on_power: impl Fn(PowerEvent) + Send + Sync + 'static) -> Result<()> {
    let register = Panic::new(move |event| {
        on_power(match event {
            PanicEvent::Panicked => PowerEvent::Panicked,
            PanicEvent::CrashKernel => PowerEvent::CrashKernel,
        });
    });
    ports.insert(arch::PANIC_PORT.into(), arch::PANIC_PORTS.into(), Arc::new(register))
}

fn connect_power(
    ports: &mut Bus,
    keyboard: KeyboardAnswer,
    on_power: impl Fn(PowerEvent) + Clone + Send + Sync + 'static,
) -> Result<()> {
    let on_reset = on_power.clone();
    let i8042 = I8042::new(keyboard, move || on_reset(PowerEvent::Reset(ResetCause::KeyboardController)));
    ports.insert(arch::I8042_PORT.into(), arch::I8042_PORTS.into(), Arc::new(i8042))?;
    let values = PowerValues { soft_off: arch::SLEEP_TYPE_S5, reset: arch::RESET_VALUE };
    let power = Power::new(values, move |request| {
        on_power(match request {
            PowerRequest::SoftOff => PowerEvent::Off,
            PowerRequest::Reset => PowerEvent::Reset(ResetCause::Acpi),
        });
    });
    ports.insert(arch::POWER_PORT.into(), arch::POWER_PORTS.into(), Arc::new(power))
}
