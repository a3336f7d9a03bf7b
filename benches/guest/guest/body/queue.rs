//! A decent driver's queue: it rings the doorbell only if the device asked for it, and wants interrupts only to sleep.

use core::sync::atomic::{Ordering, fence};

use super::interrupts::Interrupts;
use super::machine::memory;
use super::virtio::device::{Device, feature, reg};
use super::virtio::ring::{MAX_SIZE, Ring, Used};

/// A register (virtio 1.2, section 4.2.2).
const INTERRUPT_STATUS: u64 = 0x060;
/// In the available ring's flags: no interrupts, please. In the used ring's: no doorbells, please.
const NOT_WANTED: u16 = 1;
/// The index of the next completion that deserves an interrupt is kept this far ahead.
const NEVER: u16 = 0x8000;
/// How many completions may come before it is moved on.
const MOVE_ON: u16 = 0x1000;

pub struct Queue {
    pub ring: Ring,
    device: Device,
    events: bool,
    /// The available ring's index with what is put and not yet published.
    put: u16,
    taken: u16,
    pub kicks: u64,
    interrupts: Option<Interrupts>,
}

/// Brings a device up with the features of `wanted` that it offers, and the queues 0 to N - 1.
pub fn start<const N: usize>(device: Device, wanted: u64) -> Result<([Queue; N], u64), &'static str> {
    let features = device.offered() & (wanted | feature::VERSION_1 | feature::EVENT_IDX);
    if !device.negotiate(features) {
        return Err("the device refuses the features that it offers");
    }
    let queues = core::array::from_fn(|index| Queue::new(device, index as u32, features));
    if !queues.iter().all(|queue: &Queue| device.set_queue(&queue.ring)) {
        return Err("a queue does not become ready");
    }
    device.driver_ok();
    Ok((queues, features))
}

impl Queue {
    fn new(device: Device, index: u32, features: u64) -> Self {
        device.write(reg::QUEUE_SEL, index);
        let most = device.read(reg::QUEUE_NUM_MAX).min(MAX_SIZE.into()) as u16;
        let ring = Ring::new(index, most);
        let queue = Self {
            ring,
            device,
            events: features & feature::EVENT_IDX != 0,
            put: 0,
            taken: 0,
            kicks: 0,
            interrupts: None,
        };
        queue.want_no_interrupts();
        queue
    }

    /// Puts the chain at `head` into the available ring, for the next [`publish`](Self::publish).
    pub fn put(&mut self, head: u16) {
        let slot = u64::from(self.put % self.ring.size);
        memory::write(self.ring.avail + 4 + slot * 2, head);
        self.put = self.put.wrapping_add(1);
    }

    /// Shows the device what was put, and rings if it asked for that.
    pub fn publish(&mut self) {
        let old = self.ring.avail_index();
        if old == self.put {
            return;
        }
        self.ring.set_avail(self.put);
        if self.wants_doorbell(old) {
            self.device.kick(&self.ring);
            self.kicks += 1;
        }
    }

    /// The next completion.
    pub fn take(&mut self) -> Option<Used> {
        let used = self.ring.take_used()?;
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(MOVE_ON) {
            self.want_no_interrupts();
        }
        Some(used)
    }

    /// From now on [`rest`](Self::rest) waits for interrupts.
    pub fn use_interrupts(&mut self, interrupts: Interrupts) {
        self.interrupts = Some(interrupts);
    }

    /// There is nothing to do until the next completion: with interrupts, sleeps until it comes.
    pub fn rest(&mut self) {
        let Some(interrupts) = &self.interrupts else { return core::hint::spin_loop() };
        self.want_interrupt_for_next();
        fence(Ordering::SeqCst);
        // It may have come before the device could know that an interrupt is wanted.
        if self.ring.used_index() == self.taken {
            interrupts.wait();
            let reasons = self.device.read(INTERRUPT_STATUS);
            self.device.write(reg::INTERRUPT_ACK, reasons);
        }
        self.want_no_interrupts();
    }

    fn want_interrupt_for_next(&self) {
        if self.events {
            memory::write(self.ring.avail + 4 + u64::from(self.ring.size) * 2, self.taken);
        } else {
            memory::write(self.ring.avail, 0_u16);
        }
    }

    fn wants_doorbell(&self, old: u16) -> bool {
        if !self.events {
            return memory::read::<u16>(self.ring.used) & NOT_WANTED == 0;
        }
        let event: u16 = memory::read(self.ring.used + 4 + u64::from(self.ring.size) * 8);
        // Is the event's index among the new ones (virtio 1.2, section 2.7.10)?
        self.put.wrapping_sub(event).wrapping_sub(1) < self.put.wrapping_sub(old)
    }

    fn want_no_interrupts(&self) {
        if self.events {
            let event = self.taken.wrapping_add(NEVER);
            memory::write(self.ring.avail + 4 + u64::from(self.ring.size) * 2, event);
        } else {
            memory::write(self.ring.avail, NOT_WANTED);
        }
    }
}
