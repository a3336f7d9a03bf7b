//! A driver of the MMIO transport, which uses the registers in the order that the specification asks for.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::driver::DriverQueue;
use crate::bus::BusDevice;
use crate::virtio::MmioTransport;
use crate::virtio::spec::{mmio, status};

/// Drives a device through its registers, as a guest's driver does.
pub struct MmioDriver {
    transport: Arc<MmioTransport>,
}

impl MmioDriver {
    /// How long a test waits for the I/O thread before it gives up.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// Makes a driver that has done nothing yet.
    pub fn new(transport: Arc<MmioTransport>) -> Self {
        Self { transport }
    }

    /// Returns the transport of the device.
    pub fn transport(&self) -> &MmioTransport {
        &self.transport
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.transport.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a register.
    pub fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Reads the device status.
    pub fn status(&self) -> u32 {
        self.read(mmio::STATUS)
    }

    /// Reads the features that the device offers.
    pub fn offered(&self) -> u64 {
        let half = |selector| {
            self.write(mmio::DEVICE_FEATURES_SEL, selector);
            u64::from(self.read(mmio::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device, and brings it up as far as to accept `features`. Returns whether the device agrees to them.
    pub fn negotiate(&self, features: u64) -> bool {
        self.write(mmio::STATUS, 0);
        self.write(mmio::STATUS, status::ACKNOWLEDGE);
        self.write(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (selector, half) in [(0, features), (1, features >> 32)] {
            self.write(mmio::DRIVER_FEATURES_SEL, selector);
            self.write(mmio::DRIVER_FEATURES, (half & u64::from(u32::MAX)) as u32);
        }
        self.write(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    /// Sets up a queue. Returns whether the device takes it as ready.
    pub fn set_queue(&self, index: u32, queue: &DriverQueue) -> bool {
        let config = queue.config();
        self.write(mmio::QUEUE_SEL, index);
        self.write(mmio::QUEUE_NUM, config.size.into());
        let parts = [
            (mmio::QUEUE_DESC_LOW, config.desc_table),
            (mmio::QUEUE_DRIVER_LOW, config.avail_ring),
            (mmio::QUEUE_DEVICE_LOW, config.used_ring),
        ];
        for (register, gpa) in parts {
            self.write(register, (gpa.0 & u64::from(u32::MAX)) as u32);
            self.write(register + 4, (gpa.0 >> 32) as u32);
        }
        self.write(mmio::QUEUE_READY, 1);
        self.read(mmio::QUEUE_READY) == 1
    }

    /// Resets the device and brings it up to DRIVER_OK.
    ///
    /// # Panics
    /// If the device refuses the features or a queue.
    pub fn bring_up(&self, features: u64, queues: &[&DriverQueue]) {
        assert!(self.negotiate(features), "the device refuses the features {features:#x}");
        for (index, queue) in (0u32..).zip(queues) {
            assert!(self.set_queue(index, queue), "the device refuses queue {index}");
        }
        self.write(mmio::STATUS, self.status() | status::DRIVER_OK);
    }

    /// Rings for a queue: tells the device that it has new chains.
    pub fn kick(&self, queue: u32) {
        self.write(mmio::QUEUE_NOTIFY, queue);
    }

    /// Waits until the device has completed a chain. Returns its head, and how many bytes the device says that it wrote.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`](Self::PATIENCE).
    pub fn wait_used(&self, queue: &mut DriverQueue) -> (u32, u32) {
        let mut used = None;
        self.wait_until("a used buffer", || {
            used = queue.take_used();
            used.is_some()
        });
        used.expect("the wait ended with one")
    }

    /// Waits until `done` returns true. `what` describes that in the panic's message.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`](Self::PATIENCE).
    pub fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Self::PATIENCE, "waited too long for {what}");
            thread::sleep(Duration::from_micros(50));
        }
    }
}
