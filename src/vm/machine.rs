//! The parts of one VM around its vCPUs, and how they are put together and taken apart.

use std::sync::{Arc, Mutex};

use super::control::Control;
use super::exit::{Exit, ResetCause};
use super::vcpu::Buses;
use crate::arch;
use crate::bus::Bus;
use crate::console::Console;
use crate::error::Result;
use crate::kvm::KvmVm;
use crate::legacy::{Cmos, I8042, OutputBuffer, Power, PowerRequest, PowerValues, Serial};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::lock;
use crate::virtio::{IoThread, MmioTransport, Registration, VirtioDevice, spec};

/// What the builder hands over.
pub(super) struct Parts {
    /// In the order in which the guest finds them, each with the I/O thread of its own, if it has one.
    pub(super) devices: Vec<(Box<dyn VirtioDevice>, Option<IoThread>)>,
    pub(super) console: Console,
    pub(super) io_thread: IoThread,
}

pub(super) struct Machine {
    buses: Arc<Buses>,
    transports: Vec<Arc<MmioTransport>>,
    serial: Arc<Serial>,
    output: OutputBuffer,
    console: Mutex<Vec<Registration>>,
    /// Interrupt lines and doorbells are connected for as long as this lives.
    _vm: KvmVm,
}

impl Machine {
    pub(super) fn assemble(vm: KvmVm, memory: &GuestMemory, control: &Arc<Control>, parts: Parts) -> Result<Self> {
        let output = OutputBuffer::new()?;
        let serial = Arc::new(Serial::new(output.clone())?);
        vm.register_irqfd(serial.interrupt(), arch::COM1_GSI)?;
        let mut mmio = Bus::new();
        let mut transports = Vec::new();
        for (index, (device, own_thread)) in parts.devices.into_iter().enumerate() {
            let io_thread = own_thread.as_ref().unwrap_or(&parts.io_thread);
            let transport = MmioTransport::new(device, memory.clone(), io_thread)?;
            connect(&vm, &mut mmio, arch::mmio_device(index), &transport)?;
            transports.push(transport);
        }
        let console = parts.console.connect(&serial, &output, &parts.io_thread)?;
        let buses = Arc::new(Buses { pio: ports(&serial, control)?, mmio });
        Ok(Self { buses, transports, serial, output, console: Mutex::new(console), _vm: vm })
    }

    pub(super) fn buses(&self) -> &Arc<Buses> {
        &self.buses
    }

    pub(super) fn write_console(&self, bytes: &[u8]) -> usize {
        self.serial.queue_input(bytes)
    }

    pub(super) fn console_dropped(&self) -> u64 {
        self.output.dropped()
    }

    /// Stands the devices still; blocks for as long as a backend does.
    pub(super) fn pause_devices(&self) {
        self.transports.iter().for_each(|transport| transport.pause());
    }

    pub(super) fn resume_devices(&self) {
        self.transports.iter().for_each(|transport| transport.resume());
    }

    /// The devices serve no more requests, and nobody waits long for a reader of the console. Never blocks.
    pub(super) fn close(&self) {
        self.transports.iter().for_each(|transport| transport.close());
        self.output.hurry();
    }

    /// Called once no vCPU runs any more: what the guest wrote last still reaches its reader.
    pub(super) fn guest_has_ended(&self) {
        self.transports.iter().for_each(|transport| transport.close());
        self.output.wait_drained();
    }

    /// Takes the console off the I/O thread; waits for a callback that is running.
    pub(super) fn detach(&self) {
        lock(&self.console).clear();
    }
}

/// Puts a transport on the bus, its interrupt on a line, and its doorbells where no exit is needed to ring them.
fn connect(vm: &KvmVm, bus: &mut Bus, slot: arch::MmioSlot, transport: &Arc<MmioTransport>) -> Result<()> {
    bus.insert(slot.gpa.0, arch::MMIO_DEVICE_SIZE, transport.clone())?;
    vm.register_irqfd(transport.interrupt(), slot.gsi)?;
    let doorbell = GuestAddress(slot.gpa.0 + spec::mmio::QUEUE_NOTIFY);
    (0u32..).zip(transport.doorbells()).try_for_each(|(queue, event)| vm.register_doorbell(event, doorbell, queue))
}

fn ports(serial: &Arc<Serial>, control: &Arc<Control>) -> Result<Bus> {
    let mut bus = Bus::new();
    bus.insert(arch::COM1_PORT.into(), arch::COM1_PORTS.into(), serial.clone())?;
    let ends = control.clone();
    let i8042 = I8042::new(move || ends.end(Exit::Reset(ResetCause::KeyboardController)));
    bus.insert(arch::I8042_PORT.into(), arch::I8042_PORTS.into(), Arc::new(i8042))?;
    bus.insert(arch::CMOS_PORT.into(), arch::CMOS_PORTS.into(), Arc::new(Cmos))?;
    let values = PowerValues { soft_off: arch::SLEEP_TYPE_S5, reset: arch::RESET_VALUE };
    let ends = control.clone();
    let power = Power::new(values, move |request| {
        ends.end(match request {
            PowerRequest::SoftOff => Exit::Shutdown,
            PowerRequest::Reset => Exit::Reset(ResetCause::Acpi),
        });
    });
    bus.insert(arch::POWER_PORT.into(), arch::POWER_PORTS.into(), Arc::new(power))?;
    Ok(bus)
}
