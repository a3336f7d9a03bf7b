//! The registers of a virtio-mmio device (virtio 1.2, section 4.2.2).

use super::ring::Ring;
use crate::body::machine::clock;
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::memory;

pub mod reg {
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG: u64 = 0x100;
    pub const WINDOW: u64 = 0x1000;
}

pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

pub mod feature {
    pub const INDIRECT: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

#[derive(Clone, Copy)]
pub struct Device {
    pub base: u64,
}

impl Device {
    /// The first device of this type.
    pub fn find(cmdline: &Cmdline, id: u32) -> Option<Self> {
        cmdline.devices().map(|base| Self { base }).find(|device| device.read(reg::DEVICE_ID) == id)
    }

    pub fn read(self, register: u64) -> u32 {
        memory::read(self.base + register)
    }

    pub fn write(self, register: u64, value: u32) {
        memory::write(self.base + register, value);
    }

    pub fn config<T: Copy>(self, offset: u64) -> T {
        memory::read(self.base + reg::CONFIG + offset)
    }

    pub fn status(self) -> u32 {
        self.read(reg::STATUS)
    }

    pub fn needs_reset(self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }

    /// Says whether the device is reset within a second.
    pub fn reset(self) -> bool {
        self.write(reg::STATUS, 0);
        clock::wait_us(1_000_000, || self.status() == 0)
    }

    pub fn offered(self) -> u64 {
        let half = |selector| {
            self.write(reg::DEVICE_FEATURES_SEL, selector);
            u64::from(self.read(reg::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and agrees on features; says whether the device took them.
    pub fn negotiate(self, features: u64) -> bool {
        if !self.reset() {
            return false;
        }
        self.write(reg::STATUS, status::ACKNOWLEDGE);
        self.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (selector, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(reg::DRIVER_FEATURES_SEL, selector);
            self.write(reg::DRIVER_FEATURES, half);
        }
        self.write(reg::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    /// Tells the device of a queue; says whether it is ready then.
    pub fn set_queue(self, ring: &Ring) -> bool {
        self.place_queue(ring.queue, ring.size.into(), [ring.table, ring.avail, ring.used])
    }

    /// As [`set_queue`](Self::set_queue), with any size and any places.
    pub fn place_queue(self, queue: u32, size: u32, places: [u64; 3]) -> bool {
        self.write(reg::QUEUE_SEL, queue);
        self.write(reg::QUEUE_NUM, size);
        for (register, place) in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE].into_iter().zip(places) {
            self.write(register, place as u32);
            self.write(register + 4, (place >> 32) as u32);
        }
        self.write(reg::QUEUE_READY, 1);
        self.read(reg::QUEUE_READY) == 1
    }

    pub fn driver_ok(self) {
        self.write(reg::STATUS, self.status() | status::DRIVER_OK);
    }

    /// Rings the doorbell.
    pub fn kick(self, ring: &Ring) {
        self.write(reg::QUEUE_NOTIFY, ring.queue);
    }
}
