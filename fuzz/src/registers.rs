//! The MMIO register file as a sequence of accesses of any width, compared with a model of the specification.

mod model;
mod probe;

use std::sync::{Arc, Mutex};

use vmcell::bus::BusDevice;
use vmcell::virtio::spec::ring::DESCRIPTOR_WRITE;
use vmcell::virtio::spec::{feature, mmio, status};

use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring};
use crate::world::World;
use model::{DEPENDENT, DRIVER_OK, Model, OFFERED, QUEUE_SIZES};
use probe::{Probe, Seen, Task, lock};

const RINGS: [u64; 3] = [0x1000, 0x4000, 0x7000];
const BUFFER: u64 = 0x9800;
const MEMORY: u64 = 0xa000;
const CONFIG: [u8; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const MOST_HELD: i64 = 64 << 10;
const MOST_STEPS: usize = 400;

const REGISTERS: [u64; 30] = [
    0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x70, 0x70, 0x80,
    0x84, 0x90, 0x94, 0xa0, 0xa4, 0xb0, 0xb4, 0xb8, 0xbc, 0xfc, 0xac,
];
const STATUSES: [u32; 16] = [0, 1, 3, 11, 15, 7, 128, 131, 139, 143, 64 | 15, 64 | 11, 2, 8, 4, 16];

struct Test {
    guest: Guest,
    seen: Arc<Mutex<Seen>>,
    model: Model,
    rings: [Ring; 3],
    /// Chains that were offered, by queue, and not completed.
    offered: [u16; 3],
    paused: bool,
    /// A queue runs where the driver never put one: only what holds for any driver is checked until the next reset.
    wild: bool,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new();
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
    }
    test.end(&mut input);
}

impl Test {
    fn new() -> Self {
        let seen = Arc::new(Mutex::new(Seen { config: CONFIG.to_vec(), ..Seen::default() }));
        let mut world = World::new(&[0..MEMORY]);
        let rings = [0, 1, 2].map(|index| Ring::new(&mut world, RINGS[index], QUEUE_SIZES[index]));
        let guest = Guest::new(Box::new(Probe(Arc::clone(&seen))), world, MOST_HELD);
        let model = Model::new(&CONFIG);
        Self { guest, seen, model, rings, offered: [0; 3], paused: false, wild: false }
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..=2 => self.read_register(input),
            3 | 4 => self.write_register(input),
            5 => self.write_status(input),
            6 => self.read_any(input),
            7 => self.write_any(input),
            8 => self.read_config(input),
            9 => self.write_config(input),
            10 => self.go_ahead(input),
            11 => self.set_queue(input),
            12 => self.offer(input),
            13 => self.pause_or_resume(input),
            14 => self.task(input),
            _ => self.settle(),
        }
    }

    fn read_register(&mut self, input: &mut Input) {
        self.settle();
        let offset = REGISTERS[usize::from(input.byte()) % REGISTERS.len()];
        self.compare(offset);
    }

    fn compare(&mut self, offset: u64) {
        let found = self.guest.read(offset);
        match offset {
            // What a device does with queues that no driver would make is not modelled.
            mmio::INTERRUPT_STATUS if self.wild => self.model.interrupts = found,
            mmio::STATUS if self.wild => self.model.needs_reset = found & status::DEVICE_NEEDS_RESET != 0,
            _ => {}
        }
        assert_eq!(found, self.model.read(offset), "register {offset:#x}; {:x?}", self.model);
    }

    fn write_register(&mut self, input: &mut Input) {
        let offset = REGISTERS[usize::from(input.byte()) % REGISTERS.len()];
        let value = match input.below(8) {
            0..=3 => u32::from(input.byte() % 4),
            4 => u32::from(input.byte()),
            5 => 1 << (input.byte() % 32),
            6 => u32::from(input.half()) & !0xf,
            _ => input.word(),
        };
        self.write(offset, value);
    }

    fn write_status(&mut self, input: &mut Input) {
        let value = if input.one_in(16) { input.word() } else { STATUSES[usize::from(input.byte() % 16)] };
        self.write(mmio::STATUS, value);
    }

    fn write(&mut self, offset: u64, value: u32) {
        let was_active = self.model.active;
        if offset == mmio::STATUS && value == 0 {
            return self.reset();
        }
        if offset == mmio::INTERRUPT_ACK {
            // What is acknowledged before it was said is said after.
            self.settle();
        }
        self.guest.write(offset, value);
        self.model.write(offset, value, &self.guest.world);
        if self.model.active && !was_active {
            self.activated();
        }
    }

    /// The device is activated: its queues run where they were put.
    fn activated(&mut self) {
        for (index, queue) in self.model.queues.iter().enumerate().filter(|(_, queue)| queue.ready) {
            let ring = &mut self.rings[index];
            self.wild |= queue.parts != [ring.table, ring.avail, ring.used];
            ring.size = u16::try_from(queue.size).expect("a ready queue has a size that was checked");
            self.wild |= self.offered[index] > ring.size;
        }
    }

    fn reset(&mut self) {
        // Before it is over, the device may go on.
        let allowed = self.allowed();
        self.guest.write(mmio::STATUS, 0);
        self.guest.world.adopt_changes(&allowed);
        self.model.write(mmio::STATUS, 0, &self.guest.world);
        self.wild = false;
        for index in 0..3 {
            self.rings[index] = Ring::new(&mut self.guest.world, RINGS[index], QUEUE_SIZES[index]);
        }
        self.offered = [0; 3];
        self.compare(mmio::STATUS);
        self.compare(mmio::INTERRUPT_STATUS);
    }

    fn allowed(&self) -> Vec<std::ops::Range<u64>> {
        if self.wild {
            return vec![0..MEMORY];
        }
        let ready = self.model.queues.iter().map(|queue| queue.ready && self.model.active && !self.paused);
        self.rings.iter().zip(ready).filter(|(_, ready)| *ready).map(|(ring, _)| ring.used_range()).collect()
    }

    /// An access of any width at any place.
    fn read_any(&mut self, input: &mut Input) {
        self.settle();
        let (offset, len) = place(input);
        let mut found = vec![0; len];
        let mut expected = vec![0; len];
        self.guest.call(|transport| transport.read(offset, &mut found));
        if let Some(at) = offset.checked_sub(mmio::CONFIG) {
            self.model_config(at, &mut expected);
        } else if len == 4 && offset.is_multiple_of(4) {
            return self.compare(offset);
        }
        assert_eq!(found, expected, "{len} bytes at {offset:#x}");
    }

    fn model_config(&self, at: u64, expected: &mut [u8]) {
        if matches!(expected.len(), 1 | 2 | 4 | 8) {
            let config = self.model.config.iter().skip(usize::try_from(at).unwrap_or(usize::MAX));
            expected.iter_mut().zip(config).for_each(|(to, from)| *to = *from);
        }
    }

    fn write_any(&mut self, input: &mut Input) {
        let (offset, len) = place(input);
        let bytes = [input.byte(), input.byte(), 0, 0, input.byte(), 0, 0, 0, 0];
        if offset >= mmio::CONFIG {
            return self.set_config(offset - mmio::CONFIG, &bytes[..len]);
        }
        match <[u8; 4]>::try_from(&bytes[..len]) {
            Ok(bytes) if offset.is_multiple_of(4) => self.write(offset, u32::from_le_bytes(bytes)),
            _ => self.guest.access(offset, &bytes[..len]),
        }
    }

    fn read_config(&mut self, input: &mut Input) {
        self.settle();
        let at = u64::from(input.byte() % 16);
        let len = 1 << input.below(4);
        let (mut found, mut expected) = (vec![0; len], vec![0; len]);
        self.guest.call(|transport| transport.read(mmio::CONFIG + at, &mut found));
        self.model_config(at, &mut expected);
        assert_eq!(found, expected, "{len} bytes of the config space at {at}");
    }

    fn write_config(&mut self, input: &mut Input) {
        let at = u64::from(input.byte() % 16);
        let len = 1 << input.below(4);
        self.set_config(at, &[input.byte(); 8][..len]);
    }

    fn set_config(&mut self, at: u64, bytes: &[u8]) {
        // A device that is about to fail, or to do something else, does so first.
        self.settle();
        self.compare(mmio::STATUS);
        let allowed = self.allowed();
        self.guest.access(mmio::CONFIG + at, bytes);
        self.guest.world.adopt_changes(&allowed);
        let width = matches!(bytes.len(), 1 | 2 | 4 | 8);
        if width && self.model.may_set_config() && !self.model.needs_reset {
            let mut config = self.model.config.clone();
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            config.iter_mut().skip(start).zip(bytes).for_each(|(to, from)| *to = *from);
            self.model.publish(&config);
        }
    }

    /// The next right step of a driver.
    fn go_ahead(&mut self, input: &mut Input) {
        let status = self.model.status;
        let next = match status {
            0 => 1,
            1 => 3,
            3 => {
                let mut features = 1 << feature::VERSION_1 | u64::from(input.byte() & 1) << feature::RING_EVENT_IDX;
                if input.one_in(4) {
                    features |= OFFERED & !(u64::from(input.byte() & 1) * DEPENDENT);
                }
                for (selector, half) in [(0, features), (1, features >> 32)] {
                    self.write(mmio::DRIVER_FEATURES_SEL, selector);
                    self.write(mmio::DRIVER_FEATURES, (half & u64::from(u32::MAX)) as u32);
                }
                11
            }
            11 => 15,
            _ => return,
        };
        self.write(mmio::STATUS, next);
    }

    fn set_queue(&mut self, input: &mut Input) {
        let index = usize::from(input.below(3));
        let ring = self.rings[index];
        self.write(mmio::QUEUE_SEL, index as u32);
        self.write(mmio::QUEUE_NUM, if input.one_in(4) { input.byte().into() } else { QUEUE_SIZES[index].into() });
        let spoilt = input.below(16);
        for (part, gpa) in (0u16..).zip([ring.table, ring.avail, ring.used]) {
            let gpa = if part == spoilt { input.half().into() } else { gpa };
            self.write(mmio::QUEUE_DESC_LOW + 0x10 * u64::from(part), (gpa & u64::from(u32::MAX)) as u32);
            self.write(mmio::QUEUE_DESC_HIGH + 0x10 * u64::from(part), (gpa >> 32) as u32);
        }
        self.write(mmio::QUEUE_READY, 1);
        self.compare(mmio::QUEUE_READY);
    }

    /// Makes chains available, and rings.
    fn offer(&mut self, input: &mut Input) {
        let index = usize::from(input.below(3));
        for _ in 0..=input.below(4) {
            let ring = &mut self.rings[index];
            if self.offered[index] >= ring.size || self.wild {
                break;
            }
            let head = ring.avail_index % ring.size;
            let descriptor = Descriptor { gpa: BUFFER, len: 4, flags: DESCRIPTOR_WRITE, next: 0 };
            ring.set(&mut self.guest.world, head, descriptor);
            ring.offer(&mut self.guest.world, head);
            self.offered[index] += 1;
        }
        match input.below(3) {
            0 => self.write(mmio::QUEUE_NOTIFY, index as u32),
            1 => self.guest.call(|transport| transport.doorbells()[index].signal()),
            _ => {}
        }
    }

    fn pause_or_resume(&mut self, input: &mut Input) {
        self.settle();
        if !self.paused {
            let paused = self.guest.call(|transport| transport.pause(std::time::Duration::ZERO)).is_ok();
            assert!(paused, "nothing is in flight, so a pause does not fail");
            self.paused = true;
            self.compare(mmio::STATUS);
            return self.look(&[]);
        }
        if input.one_in(2) {
            self.exchange();
        }
        self.guest.call(|transport| transport.resume());
        self.paused = false;
    }

    /// Goes on with another device from the state of this one.
    fn exchange(&mut self) {
        let saves = self.guest.call(|transport| transport.save().is_ok());
        assert!(self.wild || saves != self.model.needs_reset, "one that needs a reset is not saved, any other is");
        if !saves {
            return;
        }
        let config = lock(&self.seen).config.clone();
        let activations = self.model.activations;
        let seen = Seen { config, activations, features: self.model.accepted, ..Seen::default() };
        self.seen = Arc::new(Mutex::new(seen));
        self.guest.exchange(Box::new(Probe(Arc::clone(&self.seen))));
        self.model.generation = 0;
    }

    /// The device does something by itself.
    fn task(&mut self, input: &mut Input) {
        self.settle();
        let task = if input.one_in(4) { Task::Fail } else { Task::Change(input.byte()) };
        // One that needs a reset, or stands still, is not told.
        if self.paused || self.model.needs_reset || self.wild {
            return;
        }
        let waker = {
            let mut seen = lock(&self.seen);
            seen.task = Some(task);
            seen.waker.clone().expect("it is attached")
        };
        waker.wake();
        let allowed = self.allowed();
        self.look(&allowed);
        match task {
            Task::Fail => self.model.fail(),
            Task::Change(value) => {
                let mut config = self.model.config.clone();
                config[0] = value;
                self.model.publish(&config);
            }
        }
    }

    /// Rings for all queues, and lets the device do what there is to do.
    fn settle(&mut self) {
        for index in 0..3 {
            self.guest.write(mmio::QUEUE_NOTIFY, index);
            let ring = self.rings[index as usize];
            // An interrupt is wanted for the very next chain.
            if !self.wild {
                self.guest.world.write(ring.used_event(), &ring.used_index.to_le_bytes());
            }
        }
        let allowed = self.allowed();
        self.look(&allowed);
        let seen = lock(&self.seen);
        assert_eq!(seen.activations, self.model.activations, "how often the device was activated");
        assert!(!self.model.active || seen.features == self.model.accepted, "the features that it was told");
    }

    fn look(&mut self, allowed: &[std::ops::Range<u64>]) {
        self.guest.settle(allowed);
        if self.wild {
            return;
        }
        for index in 0..3 {
            let runs = self.model.active && self.model.queues[index].ready && !self.paused;
            let ring = &mut self.rings[index];
            let mut completed = 0;
            while let Some((head, written)) = ring.take_used(&self.guest.world) {
                let expected = ring.used_index.wrapping_sub(1) % ring.size;
                assert_eq!((head, written), (expected.into(), 0), "a chain of queue {index}");
                completed += 1;
            }
            let expected = if runs { std::mem::take(&mut self.offered[index]) } else { 0 };
            assert_eq!(completed, expected, "chains of queue {index} that were completed");
            self.model.interrupts |= u32::from(completed > 0);
        }
    }

    /// After the end nothing is written, and nobody waits.
    fn end(mut self, input: &mut Input) {
        if self.paused {
            self.guest.call(|transport| transport.resume());
            self.paused = false;
        }
        self.settle();
        for offset in REGISTERS {
            self.compare(offset);
        }
        if input.one_in(2) {
            self.guest.call(|transport| transport.close());
            self.guest.kick(0);
            self.guest.write(mmio::STATUS, 0);
            self.guest.access(mmio::CONFIG, &[0]);
            return self.guest.settle(&[]);
        }
        self.reset();
        for _ in 0..4 {
            if self.model.status == 11 {
                self.set_queue(&mut Input::new(&[0, 0, 15]));
            }
            self.go_ahead(&mut Input::new(&[]));
        }
        assert!(self.model.active && self.model.status & DRIVER_OK != 0, "a driver gets up after a reset");
        self.offer(&mut Input::new(&[]));
        self.settle();
        assert_eq!(self.offered[0], 0, "a request after a reset is answered");
    }
}

fn place(input: &mut Input) -> (u64, usize) {
    let offset = match input.below(8) {
        0 => u64::from(input.half()) % mmio::WINDOW,
        1 => input.long(),
        _ => u64::from(input.half() % 0x120),
    };
    (offset, usize::from(input.below(9)))
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let up = |script: Script| script.bytes(&[10, 10, 10, 1, 0, 11, 0, 0, 15, 11, 1, 0, 15, 10]);
    let offer = |script: Script| script.bytes(&[12, 0, 2, 0, 15]);
    let all = |script: Script| (0..30u8).fold(script, |script, register| script.bytes(&[0, register]));
    vec![
        ("up", all(offer(up(Script::new()))).done()),
        ("twice", offer(up(offer(up(Script::new())).bytes(&[5, 0, 0]))).done()),
        ("pause-and-exchange", offer(up(Script::new())).bytes(&[13, 12, 0, 1, 2, 13, 1, 15, 8, 0, 2]).done()),
        ("fails", all(up(Script::new()).bytes(&[14, 3])).bytes(&[13, 13, 1, 5, 0, 0]).done()),
        ("config", up(Script::new()).bytes(&[9, 3, 2, 7, 14, 0, 9, 8, 0, 3, 0, 28]).done()),
        (
            "every-width",
            (0..9u8).fold(up(Script::new()), |script, len| script.bytes(&[6, 2]).half(0x100).bytes(&[len])).done(),
        ),
    ]
}
