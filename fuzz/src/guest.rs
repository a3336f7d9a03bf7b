//! A device behind its transport, on the calling thread, and the guest's side of it.

use std::ops::Range;
use std::sync::Arc;

use vmcell::bus::BusDevice;
use vmcell::testing::InlineIo;
use vmcell::virtio::spec::{mmio, status};
use vmcell::virtio::{MmioTransport, VirtioDevice};

use crate::alloc::Meter;
use crate::ring::Ring;
use crate::world::World;

/// The most rounds until a device that nobody disturbs has nothing left to do.
const MOST_ROUNDS: usize = 10_000;

/// What the driver's way up ends with.
pub const READY: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

/// A device with its guest.
pub struct Guest {
    pub world: World,
    pub transport: Arc<MmioTransport>,
    io: InlineIo,
    meter: Meter,
}

impl Guest {
    /// A device in this memory, which may hold `bound` bytes of the host's.
    ///
    /// # Panics
    /// If the device is not well-formed.
    pub fn new(device: Box<dyn VirtioDevice>, world: World, bound: i64) -> Self {
        let io = InlineIo::new();
        let transport = MmioTransport::new(device, world.memory().clone(), io.io_thread());
        Self { world, transport: transport.expect("the device is well-formed"), io, meter: Meter::new(bound) }
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        let transport = &self.transport;
        self.meter.run(|| transport.read(offset, &mut bytes));
        u32::from_le_bytes(bytes)
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        self.access(offset, &value.to_le_bytes());
    }

    /// Writes any number of bytes.
    pub fn access(&mut self, offset: u64, bytes: &[u8]) {
        let transport = &self.transport;
        self.meter.run(|| transport.write(offset, bytes));
    }

    /// Counts a call of the host program.
    pub fn call<R>(&mut self, call: impl FnOnce(&MmioTransport) -> R) -> R {
        let transport = &self.transport;
        self.meter.run(|| call(transport))
    }

    /// Gives the device a turn, if it has something to do; what changes in memory must lie in `allowed`.
    pub fn round(&mut self, allowed: &[Range<u64>]) -> bool {
        let io = &self.io;
        let turns = self.meter.run(|| io.round());
        self.world.adopt_changes(allowed);
        turns > 0
    }

    /// As many rounds as there are.
    ///
    /// # Panics
    /// If the device never comes to rest.
    pub fn settle(&mut self, allowed: &[Range<u64>]) {
        let rest = (0..MOST_ROUNDS).any(|_| !self.round(allowed));
        assert!(rest, "the device never comes to rest");
    }

    /// Takes a new device with the state of the one that is there, which is dropped.
    ///
    /// # Panics
    /// If the state is not the device's own.
    pub fn exchange(&mut self, device: Box<dyn VirtioDevice>) {
        let state = self.call(|transport| transport.save()).expect("it stands still");
        let (memory, io_thread) = (self.world.memory().clone(), self.io.io_thread());
        let restored =
            MmioTransport::restore(device, memory, io_thread, &state).expect("the state is the device's own");
        assert_eq!(restored.save().expect("it stands still"), state, "what is saved again is the same");
        self.transport = restored;
    }

    /// Resets the device and accepts `features`.
    ///
    /// # Panics
    /// If they are not accepted.
    pub fn negotiate(&mut self, features: u64) {
        self.write(mmio::STATUS, 0);
        assert_eq!(self.read(mmio::STATUS), 0, "the status after a reset");
        self.write(mmio::STATUS, status::ACKNOWLEDGE);
        self.write(mmio::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (selector, half) in [(0, features), (1, features >> 32)] {
            self.write(mmio::DRIVER_FEATURES_SEL, selector);
            self.write(mmio::DRIVER_FEATURES, (half & u64::from(u32::MAX)) as u32);
        }
        let agreed = READY & !status::DRIVER_OK;
        self.write(mmio::STATUS, agreed);
        assert_eq!(self.read(mmio::STATUS), agreed, "the features {features:#x} are accepted");
    }

    /// Sets queues up, by index, and says that the driver is ready.
    ///
    /// # Panics
    /// If a queue does not become ready.
    pub fn start(&mut self, rings: &[Ring]) {
        for (index, ring) in (0u32..).zip(rings) {
            self.write(mmio::QUEUE_SEL, index);
            self.write(mmio::QUEUE_NUM, ring.size.into());
            let parts = [
                (mmio::QUEUE_DESC_LOW, ring.table),
                (mmio::QUEUE_DRIVER_LOW, ring.avail),
                (mmio::QUEUE_DEVICE_LOW, ring.used),
            ];
            for (register, gpa) in parts {
                self.write(register, (gpa & u64::from(u32::MAX)) as u32);
                self.write(register + 4, (gpa >> 32) as u32);
            }
            self.write(mmio::QUEUE_READY, 1);
            assert_eq!(self.read(mmio::QUEUE_READY), 1, "queue {index} is ready");
        }
        self.write(mmio::STATUS, READY);
    }

    /// Rings for a queue.
    pub fn kick(&mut self, queue: u32) {
        self.write(mmio::QUEUE_NOTIFY, queue);
    }
}
