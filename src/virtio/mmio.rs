//! A virtio device as the guest sees it: a window of registers in its address space (4.2).

use std::sync::{Arc, Mutex};

use super::cell::{Backend, DeviceCell};
use super::device::{Activation, VirtioDevice};
use super::interrupt::{Interrupt, MmioInterrupt};
use super::io_thread::{IoThread, Registration};
use super::lock;
use super::queue::Queue;
use super::registers::Registers;
use super::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use super::spec::mmio as reg;
use super::spec::status::DEVICE_NEEDS_RESET;
use super::status::Step;
use crate::bus::BusDevice;
use crate::error::Result;
use crate::memory::GuestMemory;
use crate::sys::{EventFd, Interest};

/// What the transport and the queues offer beside the device's own features.
const OFFERED: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << RING_INDIRECT_DESC;

/// The MMIO transport, modern version only: [`WINDOW`](super::spec::mmio::WINDOW) bytes of registers in front of a device.
///
/// Put it on a bus, connect [`interrupt`](Self::interrupt) to an edge-triggered irqfd, and, for speed, each of the
/// [`doorbells`](Self::doorbells) to an ioeventfd at offset 0x50 that matches the queue's index as 32 bits; a doorbell that
/// comes over the bus works as well. The device runs on the I/O thread. Dropping the transport waits until it is not
/// running any more.
///
/// Whatever is illegal in a state is refused, and leaves the device as it was.
pub struct MmioTransport {
    cell: Arc<DeviceCell>,
    registers: Mutex<Registers>,
    offered: u64,
    memory: GuestMemory,
    /// Taken off the I/O thread when the transport is dropped.
    _registrations: Vec<Registration>,
}

impl MmioTransport {
    /// Puts a device behind a transport and on an I/O thread. It runs when the guest's driver is ready.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) where a queue's largest size is not a power of two;
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) where the process may open no more descriptors.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestMemory, io_thread: &IoThread) -> Result<Arc<Self>> {
        let offered = device.features() | OFFERED;
        let max_sizes = device.queue_max_sizes();
        let registers = Mutex::new(Registers::new(device.device_id(), offered, max_sizes)?);
        let doorbells = max_sizes.iter().map(|_| Ok(Arc::new(EventFd::new()?))).collect::<Result<Vec<_>>>()?;
        let sources = device.backend_sources();
        let cell = Arc::new(DeviceCell::new(device, Arc::new(MmioInterrupt::new()?), doorbells));

        let mut registrations = Vec::new();
        for (index, doorbell) in (0u16..).zip(&cell.doorbells) {
            let served = Arc::clone(&cell);
            let handler = move |_| served.on_doorbell(index);
            registrations.push(io_thread.register(Arc::clone(doorbell), Interest::Readable, handler)?);
        }
        let mut backends = Vec::new();
        for source in sources {
            let served = Arc::clone(&cell);
            let handler = move |ready| served.on_backend(source.token, ready);
            let registration = io_thread.register(source.fd, Interest::Nothing, handler)?;
            backends.push(Backend::new(source.token, registration.control()));
            registrations.push(registration);
        }
        cell.set_backends(backends);
        Ok(Arc::new(Self { cell, registers, offered, memory, _registrations: registrations }))
    }

    /// One eventfd a queue, by index: signalling it is what the driver's doorbell does.
    pub fn doorbells(&self) -> &[Arc<EventFd>] {
        &self.cell.doorbells
    }

    /// Signalled for each interrupt. The reasons stand in the interrupt status register.
    pub fn interrupt(&self) -> &EventFd {
        self.cell.interrupt.line()
    }

    /// Stops the device between two requests: when this returns, it touches neither guest memory nor its backend. Waits
    /// for the request that is running, unless the transport is closed meanwhile. Not from within the device.
    pub fn pause(&self) {
        self.cell.pause();
    }

    /// Goes on after a pause, beginning with what the driver rang for meanwhile.
    pub fn resume(&self) {
        self.cell.resume();
    }

    /// Stops the device for good without waiting: its queues are closed, and it is not called again. A request that is
    /// running ends some time later; dropping the transport waits for it. From any thread.
    pub fn close(&self) {
        self.cell.close();
    }

    // Reading and acknowledging interrupts, and ringing, take no lock: they are what a running driver does.
    fn read_register(&self, offset: u64) -> u32 {
        match offset {
            reg::INTERRUPT_STATUS => self.cell.interrupt.status(),
            reg::CONFIG_GENERATION => self.cell.interrupt.generation(),
            reg::STATUS => {
                let failed = if self.cell.interrupt.needs_reset() { DEVICE_NEEDS_RESET } else { 0 };
                lock(&self.registers).status.bits() | failed
            }
            _ => lock(&self.registers).read(offset),
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            reg::QUEUE_NOTIFY => {
                let doorbell = usize::try_from(value).ok().and_then(|queue| self.cell.doorbells.get(queue));
                if let Some(doorbell) = doorbell {
                    doorbell.signal();
                }
            }
            reg::INTERRUPT_ACK => self.cell.interrupt.acknowledge(value),
            // Held to the end: what two vCPUs write at once happens one after the other, a reset included.
            reg::STATUS => self.write_status(&mut lock(&self.registers), value),
            _ => lock(&self.registers).write(offset, value, &self.memory),
        }
    }

    fn write_status(&self, registers: &mut Registers, value: u32) {
        match registers.status.step(value) {
            Step::Refused => {}
            Step::Reset => {
                self.cell.reset();
                registers.reset();
            }
            Step::Forward { negotiates: true, .. } if !self.accepts(registers.accepted()) => {}
            Step::Forward { next, activates, .. } => {
                registers.status = next;
                // A device that has failed stays still until it is reset, however far its driver goes.
                if activates && !self.cell.interrupt.needs_reset() {
                    self.activate(registers);
                }
            }
        }
    }

    fn accepts(&self, features: u64) -> bool {
        let subset = features & !self.offered == 0;
        let modern = features & 1 << VERSION_1 != 0;
        subset && modern && self.cell.with(|device| device.accepts(features)).unwrap_or(false)
    }

    fn activate(&self, registers: &Registers) {
        let features = registers.accepted();
        let interrupt: Arc<dyn Interrupt> = self.cell.interrupt.clone();
        let event_idx = features & 1 << RING_EVENT_IDX != 0;
        let queues: Result<Vec<_>> = (0u16..)
            .zip(registers.ready_queues())
            .map(|(index, config)| {
                let start = |config| Queue::new(&config, &self.memory, index, event_idx, Arc::clone(&interrupt));
                config.map(start).transpose()
            })
            .collect();
        match queues {
            Ok(queues) => {
                self.cell.activate(Activation::new(features, queues, self.memory.clone(), interrupt));
            }
            // They were checked when they became ready, so this is ours, not the driver's.
            Err(_) => self.cell.interrupt.fail(true),
        }
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            if is_config_width(data.len()) {
                self.cell.with(|device| device.read_config(offset, data));
            }
        } else if let Ok(data) = <&mut [u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            *data = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            if is_config_width(data.len()) && lock(&self.registers).status.may_set_config() {
                self.cell.with(|device| device.write_config(offset, data));
            }
        } else if let Ok(data) = <[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(data));
        }
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        self.cell.close();
    }
}

fn is_config_width(len: usize) -> bool {
    matches!(len, 1 | 2 | 4 | 8)
}

#[cfg(test)]
#[path = "mmio_test.rs"]
mod tests;
