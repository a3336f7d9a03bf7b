//! Reads and writes of a disk, so many at a time: `size=` bytes each, `depth=` of them, `order=random` or `order=next`. It polls, unless
//! `interrupts=1`.
//!
//! The first and the last 8 bytes of each 4 KiB block hold the block's number, and above it the number of the run that wrote
//! it (`run=`). Each read is checked at both ends; what was written last is read again at the end.

use super::interrupts::Interrupts;
use super::machine::cmdline::Cmdline;
use super::machine::{clock, memory};
use super::measure::{Count, Times, line};
use super::queue::{self, Queue};
use super::virtio::block::{FEATURE_FLUSH, FEATURE_READ_ONLY, IN, OK, OUT, SECTOR, header, status, status_of};
use super::virtio::device::Device;
use super::virtio::ring::{readable, writable};

const DEVICE_ID: u32 = 2;
const BLOCK: u64 = 4096;
/// Below the number of the run.
const NUMBER: u64 = (1 << 48) - 1;
const MOST_DEPTH: usize = 64;
/// Header, data, status.
const CHAIN: u16 = 3;
/// How many of the blocks written last are read again.
const KEPT: usize = 64;
/// How long a request may take.
const PATIENCE_US: u64 = 5_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

struct Load {
    queue: Queue,
    kind: Kind,
    /// Bytes a request, and how many requests the disk has room for.
    size: u64,
    places: u64,
    depth: u16,
    random: Option<u64>,
    next: u64,
    run: u64,
    /// The place of the request in each slot.
    at: [u64; MOST_DEPTH],
    written: [u64; KEPT],
    count: Count,
}

pub fn run(cmdline: &Cmdline, kind: Kind) -> Result<(), &'static str> {
    let mut load = Load::start(cmdline, kind)?;
    (0..load.depth).for_each(|slot| load.issue(slot));
    load.queue.publish();
    Times::of(cmdline).measure(|| load.turn());
    load.drain()?;
    if kind == Kind::Write { load.read_again() } else { Ok(()) }
}

impl Load {
    fn start(cmdline: &Cmdline, kind: Kind) -> Result<Self, &'static str> {
        let device = Device::find(cmdline, DEVICE_ID).ok_or("there is no disk")?;
        let number = |key, default| cmdline.number(key).unwrap_or(default);
        let (size, depth) = (number("size", BLOCK), number("depth", 1));
        if size % BLOCK != 0
            || !(1..=MOST_DEPTH as u64).contains(&depth)
            || size * depth > memory::SHARED - memory::DATA
        {
            return Err("this size or depth is not possible");
        }
        let ([mut queue], _) = queue::start(device, FEATURE_FLUSH | FEATURE_READ_ONLY)?;
        let places = device.config::<u32>(0);
        let places = (u64::from(places) | u64::from(device.config::<u32>(4)) << 32) * SECTOR / size;
        if places == 0 || depth * u64::from(CHAIN) > u64::from(queue.ring.size) {
            return Err("the disk or its queue is too small");
        }
        if number("interrupts", 0) == 1 {
            queue.use_interrupts(Interrupts::of(cmdline, device).ok_or("the disk has no interrupt")?);
        }
        let random = (cmdline.text("order") != Some("next")).then_some(clock::now_us() | 1);
        let (depth, run) = (depth as u16, number("run", 0));
        let (at, written, count) = ([0; MOST_DEPTH], [u64::MAX; KEPT], Count::default());
        Ok(Self { queue, kind, size, places, depth, random, next: 0, run, at, written, count })
    }

    /// Takes what is done, and puts as many requests in its place.
    fn turn(&mut self) -> Count {
        let before = self.count.done;
        while let Some(used) = self.queue.take() {
            let slot = used.id as u16 / CHAIN;
            self.finish(slot, used.written);
            self.issue(slot);
        }
        self.queue.publish();
        if self.count.done == before {
            self.queue.rest();
        }
        self.count.kicks = self.queue.kicks;
        self.count
    }

    fn issue(&mut self, slot: u16) {
        let place = self.next_place();
        self.at[usize::from(slot)] = place;
        if self.kind == Kind::Write {
            stamps(slot, place, self.size).for_each(|(at, number)| memory::write(at, number | self.run << 48));
        }
        self.put(slot, place, self.kind);
    }

    fn put(&mut self, slot: u16, place: u64, kind: Kind) {
        let len = self.size as u32;
        let (kind, data) = match kind {
            Kind::Read => (IN, writable(data_of(slot, self.size), len)),
            Kind::Write => (OUT, readable(data_of(slot, self.size), len)),
        };
        let head = slot * CHAIN;
        self.queue.ring.chain(head, &[header(slot, kind, place * self.size / SECTOR), data, status(slot)]);
        self.queue.put(head);
    }

    fn finish(&mut self, slot: u16, written: u32) {
        let place = self.at[usize::from(slot)];
        let right = match self.kind {
            Kind::Read => written == self.size as u32 + 1 && self.holds(slot, place, NUMBER, 0),
            Kind::Write => {
                self.written[self.count.done as usize % KEPT] = place;
                true
            }
        };
        self.count.done += 1;
        self.count.wrong += u64::from(!(right && status_of(slot) == OK));
    }

    /// Does the data end and begin with the right numbers, under this mask?
    fn holds(&self, slot: u16, place: u64, mask: u64, run: u64) -> bool {
        stamps(slot, place, self.size).all(|(at, number)| memory::read::<u64>(at) & mask == number | run << 48)
    }

    fn next_place(&mut self) -> u64 {
        let Some(random) = &mut self.random else {
            self.next = (self.next + 1) % self.places;
            return self.next;
        };
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The high bits are the random ones.
        ((*random >> 32) * self.places) >> 32
    }

    /// Waits for what is in flight.
    fn drain(&mut self) -> Result<(), &'static str> {
        let all = clock::wait_us(PATIENCE_US, || {
            while let Some(used) = self.queue.take() {
                self.finish(used.id as u16 / CHAIN, used.written);
            }
            self.queue.ring.in_flight() == 0
        });
        if all { Ok(()) } else { Err("some requests were never completed") }
    }

    fn read_again(&mut self) -> Result<(), &'static str> {
        for place in self.written.into_iter().filter(|place| *place != u64::MAX) {
            stamps(0, place, self.size).for_each(|(at, _)| memory::write(at, u64::MAX));
            self.put(0, place, Kind::Read);
            self.queue.publish();
            let done = clock::wait_us(PATIENCE_US, || self.queue.take().is_some());
            if !done || status_of(0) != OK || !self.holds(0, place, u64::MAX, self.run) {
                line(format_args!("place {place}"));
                return Err("what was written is not what is read");
            }
        }
        Ok(())
    }
}

fn data_of(slot: u16, size: u64) -> u64 {
    memory::DATA + u64::from(slot) * size
}

/// Where the numbers of the first and of the last block are in a slot's data, and what they are.
fn stamps(slot: u16, place: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let (data, first) = (data_of(slot, size), place * size / BLOCK);
    [(data, first), (data + size - 8, first + size / BLOCK - 1)].into_iter()
}
