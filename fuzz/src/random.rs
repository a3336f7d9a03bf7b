//! The source of random bytes: how many each request gets, where they go, and that a limited guest gets no more than its limit.

use std::collections::VecDeque;
use std::time::Instant;

use vmcell::testing::rooms::rng;
use vmcell::virtio::spec::ring::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::spec::{feature, mmio};
use vmcell::{RateLimit, RngConfig};

use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring, cut, total};
use crate::world::World;

/// Two regions that touch, with the queue at the beginning of the first.
const REGIONS: [std::ops::Range<u64>; 2] = [0..0x8000, 0x8000..0x1_0000];
const RINGS: u64 = 0x1000;
/// Where buffers and tables are, so that nothing that the device writes changes a chain.
const BUFFERS: u64 = 0x6000;
const TABLES: u64 = 0x4000;
/// The most descriptors that the queue offers.
const SIZE: u16 = 64;
/// What one request gets at the most.
const MOST: u64 = 4096;
/// A limited request waits until it gets so many.
const LEAST: u64 = 64;
/// What the device and its queue may hold: the storage of chains.
const MOST_HELD: i64 = 64 << 10;
const MOST_STEPS: usize = 200;

/// A request without an answer.
struct Asked {
    head: u16,
    /// What is to be filled; none if the chain breaks a rule.
    buffers: Option<Vec<(u64, u32)>>,
}

impl Asked {
    fn wanted(&self) -> u64 {
        self.buffers.as_ref().map_or(0, |buffers| total(buffers))
    }
}

struct Test {
    guest: Guest,
    ring: Ring,
    asked: VecDeque<Asked>,
    limit: Option<RateLimit>,
    begun: Instant,
    given: u64,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new(&mut input);
    for _ in 0..MOST_STEPS {
        if input.is_over() {
            break;
        }
        test.step(&mut input);
    }
    test.serve();
    test.guest.write(mmio::STATUS, 0);
    test.guest.settle(&[]);
    assert_eq!(test.guest.read(mmio::STATUS), 0, "a reset takes a request that waits");
}

impl Test {
    fn new(input: &mut Input) -> Self {
        let mut world = World::new(&REGIONS);
        let limit = input.one_in(2).then(|| RateLimit::per_second(1).burst(u64::from(input.half()) + 1));
        let mut config = RngConfig::new();
        config.rate = limit;
        let ring = Ring::new(&mut world, RINGS, 1 << input.below(7));
        let mut guest = Guest::new(rng(&config), world, MOST_HELD);
        guest.negotiate(1 << feature::VERSION_1 | 1 << feature::RING_INDIRECT_DESC);
        guest.start(&[ring]);
        Self { guest, ring, asked: VecDeque::new(), limit, begun: Instant::now(), given: 0 }
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(4) {
            0 | 1 => self.describe(input),
            2 if self.asked.len() < self.ring.size.into() => self.offer(input),
            _ => self.serve(),
        }
    }

    /// Writes a descriptor into the table, or where tables of others are. A chain that was offered stays as it is until it is answered.
    fn describe(&mut self, input: &mut Input) {
        let (index, is_own) = (input.below(SIZE), !input.one_in(3));
        let descriptor = descriptor(input, index);
        if !self.asked.is_empty() {
            return;
        }
        if is_own {
            self.ring.set(&mut self.guest.world, index % self.ring.size, descriptor);
        } else {
            self.guest.world.write(TABLES + 16 * u64::from(index), &descriptor.to_bytes());
        }
    }

    fn offer(&mut self, input: &mut Input) {
        let head = input.below(SIZE) % self.ring.size;
        let shape = self.ring.walk(&self.guest.world, head, SIZE.into());
        self.asked.push_back(Asked { head, buffers: shape.map(|shape| shape.writable) });
        self.ring.offer(&mut self.guest.world, head);
    }

    /// Gives the device its turns, and looks at the answers.
    fn serve(&mut self) {
        let mut allowed = vec![self.ring.used_range()];
        for buffers in self.asked.iter().filter_map(|asked| asked.buffers.as_ref()) {
            allowed.extend(cut(buffers, 0, MOST).into_iter().map(|(gpa, len)| gpa..gpa + len));
        }
        self.guest.kick(0);
        self.guest.settle(&allowed);
        while let Some((head, written)) = self.ring.take_used(&self.guest.world) {
            let asked = self.asked.pop_front().expect("no more is answered than was asked");
            assert_eq!(head, u32::from(asked.head), "requests are answered in their order");
            self.check(asked.wanted().min(MOST), written.into());
        }
        if let Some(asked) = self.asked.front() {
            let limit = self.limit.expect("without a limit, all requests are answered");
            let wanted = asked.wanted().min(LEAST).min(limit.burst);
            assert!(wanted > 0, "what gets nothing waits for nothing");
            assert!(self.given + wanted > limit.burst, "a request waits of which the limit has no need");
        }
    }

    fn check(&mut self, wanted: u64, written: u64) {
        self.given += written;
        let Some(limit) = self.limit else { return assert_eq!(written, wanted) };
        let seconds = self.begun.elapsed().as_secs() + 1;
        assert!(self.given <= limit.burst + seconds, "{} bytes in {seconds} s", self.given);
        let least = wanted.min(LEAST).min(limit.burst);
        assert!((least..=wanted).contains(&written), "{written} bytes of {wanted}");
    }
}

fn descriptor(input: &mut Input, index: u16) -> Descriptor {
    let gpa = match input.below(8) {
        0 => input.long() | 1 << 63,
        1 => REGIONS[1].end - u64::from(input.byte()),
        2 => TABLES + 16 * u64::from(input.below(SIZE)),
        _ => BUFFERS + u64::from(input.half()) % (REGIONS[1].end - BUFFERS),
    };
    let len = match input.below(6) {
        0 => input.word(),
        1 => u32::from(input.half()),
        2 => 16 * u32::from(input.below(SIZE)),
        3 => 1,
        blocks => u32::from(blocks) * 1024,
    };
    let flags = match input.below(8) {
        0 => input.half(),
        1 => DESCRIPTOR_INDIRECT,
        2 => DESCRIPTOR_NEXT,
        3 => 0,
        4 | 5 => DESCRIPTOR_WRITE | DESCRIPTOR_NEXT,
        _ => DESCRIPTOR_WRITE,
    };
    // Tables are not written: what leads to them may only be a table.
    let flags = if gpa < BUFFERS { flags & !DESCRIPTOR_WRITE } else { flags };
    let next = if input.one_in(4) { input.half() } else { index + 1 };
    Descriptor { gpa, len, flags, next }
}

/// Inputs that reach far, by their names.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // A descriptor at 0: in the buffers, of 4096 bytes, to be written, without a successor.
    let describe = |script: Script| script.bytes(&[0, 0, 0, 7]).half(0).bytes(&[4, 6, 0]);
    let ask = |script: Script| script.bytes(&[2, 0]);
    let serve = |script: Script| script.bytes(&[3]);
    let unlimited = Script::new().bytes(&[0, 6]);
    let limited = Script::new().bytes(&[1]).half(5000).bytes(&[6]);
    let two = |script| serve(ask(serve(ask(describe(script))))).done();
    vec![("two-requests", two(unlimited)), ("a-request-that-waits", two(limited))]
}
