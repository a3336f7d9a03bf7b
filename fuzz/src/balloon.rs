//! The balloon: which pages are gone, what is counted, and what the host program is told.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use vmcell::testing::rooms::balloon;
use vmcell::virtio::VirtioDevice;
use vmcell::virtio::spec::ring::{DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::spec::{feature, mmio};
use vmcell::{BalloonConfig, BalloonHandle};

use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring};
use crate::world::World;

const PAGE: u64 = 4096;
/// Two regions that touch, with the queues and what is sent at the beginning of the first.
const REGIONS: [Range<u64>; 2] = [0..0x3_0000, 0x3_0000..0x6_0000];
const RAM: u64 = 0x6_0000;
const RINGS: u64 = 0x1000;
const RING_STEP: u64 = 0x3000;
/// Lists of pages and statistics.
const LISTS: Range<u64> = 0x1_0000..0x2_0000;
/// Pages that are given away begin here.
const FREE: u64 = LISTS.end / PAGE;
const SIZE: u16 = 16;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
/// Reports come by either of these.
const REPORTS: [usize; 2] = [3, 4];
/// All but for indirect descriptors.
const FEATURES: u64 = 1 << feature::VERSION_1 | 0b10_0111;
/// What the device and its queues may hold: the storage of chains, a part of the set of pages, and states.
const MOST_HELD: i64 = 96 << 10;
const MOST_STEPS: usize = 100;

struct Test {
    guest: Guest,
    handle: BalloonHandle,
    rings: [Ring; 5],
    /// Pages in the balloon.
    inside: BTreeSet<u64>,
    counted: Counted,
    target: u64,
    actual: u64,
    /// The statistics that the device keeps, as their head.
    kept: Option<u16>,
    free: Option<u64>,
}

/// Since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    inflated: u64,
    deflated: u64,
    repeated: u64,
    reported: u64,
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
        test.check();
    }
}

fn device() -> (Box<dyn VirtioDevice>, BalloonHandle) {
    balloon(&BalloonConfig::new(), RAM)
}

impl Test {
    fn new() -> Self {
        let mut world = World::new(&REGIONS);
        let rings = rings(&mut world);
        let (device, handle) = device();
        let mut guest = Guest::new(device, world, MOST_HELD);
        guest.negotiate(FEATURES);
        guest.start(&rings);
        Self {
            guest,
            handle,
            rings,
            inside: BTreeSet::new(),
            counted: Counted::default(),
            target: 0,
            actual: 0,
            kept: None,
            free: None,
        }
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(10) {
            0..=2 => self.send(input, INFLATE),
            3 | 4 => self.send(input, DEFLATE),
            5 | 6 => self.report(input),
            7 => self.say(input),
            8 => self.change(input),
            _ if input.one_in(4) => self.reset(),
            _ => self.use_page(FREE + u64::from(input.below(64))),
        }
    }

    /// Sends numbers of pages, in several buffers, to be put in or taken out.
    fn send(&mut self, input: &mut Input, queue: usize) {
        let count = if input.one_in(4) { 64 * u64::from(input.byte()) } else { u64::from(input.below(16)) } + 1;
        let (mut at, mut numbers, mut page) = (LISTS.start, Vec::new(), 0u64);
        for _ in 0..count.min((LISTS.end - LISTS.start) / 4) {
            page = match input.below(6) {
                0 => u64::from(input.word() | 0x100),
                1 | 2 => FREE + u64::from(input.below(64)),
                3 => page.wrapping_sub(1).max(FREE),
                _ => (page + 1).max(FREE),
            } & u64::from(u32::MAX);
            self.guest.world.write(at, &u32::try_from(page).expect("it has 32 bits").to_le_bytes());
            numbers.push(page);
            at += 4;
        }
        let len = at - LISTS.start - u64::from(input.below(4));
        numbers.truncate(usize::try_from(len / 4).expect("it is small"));
        let cut = u64::from(input.half()) % (len + 1);
        let buffers = [(LISTS.start, cut), (LISTS.start + cut, len - cut)];
        let buffers: Vec<_> = buffers.into_iter().filter(|(_, len)| *len > 0).map(|(gpa, len)| (gpa, len, 0)).collect();
        let mut gone = BTreeSet::new();
        for page in numbers {
            match queue {
                INFLATE if page * PAGE >= RAM => {}
                INFLATE if self.inside.insert(page) => {
                    self.counted.inflated += 1;
                    gone.insert(page);
                }
                INFLATE => self.counted.repeated += 1,
                _ => self.counted.deflated += u64::from(self.inside.remove(&page)),
            }
        }
        self.serve(input, queue, &buffers, &gone);
    }

    /// Reports any parts of the pages that may be given away, and of what is none.
    fn report(&mut self, input: &mut Input) {
        let queue = REPORTS[usize::from(input.below(2))];
        let mut buffers = Vec::new();
        for _ in 0..=input.below(5) {
            let step = if input.one_in(2) { 1 } else { 16 };
            let gpa = FREE * PAGE + u64::from(input.half()) * step % (RAM - FREE * PAGE);
            let gpa = if input.one_in(2) { gpa & !(PAGE - 1) } else { gpa };
            let len = PAGE * u64::from(input.below(8)) + u64::from(if input.one_in(2) { input.half() } else { 0 });
            buffers.push((gpa, len, DESCRIPTOR_WRITE));
        }
        // One bad buffer spoils the chain.
        let is_bad = |&(gpa, len, _): &(u64, u64, u16)| len == 0 || !self.guest.world.contains(gpa, len);
        let mut gone = BTreeSet::new();
        if !buffers.iter().any(is_bad) {
            for (gpa, len, _) in &buffers {
                let (first, end) = (gpa.div_ceil(PAGE), (gpa + len) / PAGE);
                gone.extend(first..end);
                self.counted.reported += PAGE * end.saturating_sub(first);
            }
        }
        self.serve(input, queue, &buffers, &gone);
    }

    /// Offers one chain, which is completed in turns, between which the device may be exchanged.
    fn serve(&mut self, input: &mut Input, queue: usize, buffers: &[(u64, u64, u16)], gone: &BTreeSet<u64>) {
        let head = self.offer(queue, buffers);
        let mut allowed: Vec<_> = gone.iter().map(|page| page * PAGE..(page + 1) * PAGE).collect();
        allowed.extend(self.rings.iter().map(Ring::used_range));
        if input.one_in(3) {
            for _ in 0..input.below(4) {
                self.guest.round(&allowed);
            }
            self.exchange(&allowed);
        }
        self.guest.settle(&allowed);
        for page in gone {
            let found = self.guest.world.read(page * PAGE, PAGE);
            assert!(found.iter().all(|byte| *byte == 0), "page {page:#x} is not gone");
        }
        assert_eq!(self.rings[queue].take_used(&self.guest.world), Some((head.into(), 0)), "queue {queue}");
        assert_eq!(self.rings[queue].take_used(&self.guest.world), None, "queue {queue}");
    }

    fn offer(&mut self, queue: usize, buffers: &[(u64, u64, u16)]) -> u16 {
        let ring = &mut self.rings[queue];
        // The chain before is done, or it is statistics, which are kept at the other place.
        let first = ring.avail_index % 2 * (SIZE / 2);
        for (index, (gpa, len, flags)) in (first..).zip(buffers) {
            let more = if usize::from(index - first) + 1 < buffers.len() { DESCRIPTOR_NEXT } else { 0 };
            let len = u32::try_from(*len).expect("it is small");
            let descriptor = Descriptor { gpa: *gpa, len, flags: flags | more, next: index + 1 };
            ring.set(&mut self.guest.world, index, descriptor);
        }
        ring.offer(&mut self.guest.world, first);
        self.guest.kick(u32::try_from(queue).expect("there are five"));
        first
    }

    /// Another device goes on with the state of this one. It counts from 0.
    fn exchange(&mut self, allowed: &[Range<u64>]) {
        self.guest.call(|transport| transport.pause(Duration::from_secs(10))).expect("it stands still");
        self.guest.world.adopt_changes(allowed);
        let before = self.guest.transport.own_counters();
        let (device, handle) = device();
        self.guest.exchange(device);
        self.handle = handle;
        self.guest.call(|transport| transport.resume());
        // What was said was said to the other one.
        self.free = None;
        let counted = &mut self.counted;
        counted.inflated -= before["inflated_pages"];
        counted.deflated -= before["deflated_pages"];
        counted.repeated -= before["repeated_pages"];
        counted.reported -= before["reported_bytes"];
    }

    fn say(&mut self, input: &mut Input) {
        let count = input.below(40);
        let mut free = None;
        for index in 0..count {
            let (tag, value) = (input.below(20), input.long());
            let at = LISTS.start + 10 * u64::from(index);
            self.guest.world.write(at, &tag.to_le_bytes());
            self.guest.world.write(at + 2, &value.to_le_bytes());
            if tag == 4 && index < 32 {
                free = Some(value);
            }
        }
        let len = 10 * u64::from(count) + u64::from(input.below(10));
        let buffers = if len > 0 { [(LISTS.start, len, 0)] } else { [(LISTS.start, 1, DESCRIPTOR_WRITE)] };
        let head = self.offer(STATISTICS, &buffers);
        let rest = 10 * u64::from(count);
        // A part of an entry is none, and nor is what lies behind it.
        self.guest.world.adopt(LISTS.start + rest, 10);
        let used = self.rings[STATISTICS].used_range();
        self.guest.settle(std::slice::from_ref(&used));
        let back = if len > 0 { self.kept.replace(head) } else { Some(head) };
        self.free = if len > 0 { free } else { self.free };
        let found = self.rings[STATISTICS].take_used(&self.guest.world);
        assert_eq!(found, back.map(|head| (head.into(), 0)), "statistics");
    }

    /// What the host program and the driver tell each other by the config space.
    fn change(&mut self, input: &mut Input) {
        if input.one_in(2) {
            let bytes = u64::from(input.half()) * 16;
            let taken = self.handle.set_target(bytes);
            assert_eq!(taken.is_ok(), bytes <= RAM, "{bytes}");
            self.target = if bytes <= RAM { bytes / PAGE } else { self.target };
        } else {
            let (offset, len) = (u64::from(input.below(12)), 1 << input.below(4));
            let bytes = &[input.byte(); 8][..len];
            let mut actual = u32::try_from(self.actual).expect("it has 32 bits").to_le_bytes();
            // An access that does not fit the space is none of its fields'.
            for (at, byte) in (offset..).zip(bytes) {
                if let Some(place) =
                    at.checked_sub(4).and_then(|at| actual.get_mut(usize::try_from(at).expect("small")))
                {
                    *place = *byte;
                }
            }
            self.guest.access(mmio::CONFIG + offset, bytes);
            self.actual = u32::from_le_bytes(actual).into();
        }
        self.guest.settle(&[]);
    }

    fn reset(&mut self) {
        self.guest.negotiate(FEATURES);
        self.rings = rings(&mut self.guest.world);
        self.guest.start(&self.rings);
        self.guest.settle(&self.rings.each_ref().map(|ring| ring.used_range()));
        self.inside.clear();
        (self.actual, self.kept, self.free) = (0, None, None);
        assert_eq!(self.handle.statistics(), None);
    }

    /// The guest uses a page, whether or not it is in the balloon.
    fn use_page(&mut self, page: u64) {
        self.guest.world.write(page * PAGE, &[0x5a; 4096]);
    }

    fn check(&mut self) {
        let found = self.guest.transport.own_counters();
        let counted = Counted {
            inflated: found["inflated_pages"],
            deflated: found["deflated_pages"],
            repeated: found["repeated_pages"],
            reported: found["reported_bytes"],
        };
        assert_eq!((counted, found["kept_bytes"]), (self.counted, 0));
        assert_eq!(self.handle.reported(), counted.reported);
        assert_eq!((self.handle.target(), self.handle.actual()), (self.target * PAGE, self.actual * PAGE));
        let config = [mmio::CONFIG, mmio::CONFIG + 4].map(|at| u64::from(self.guest.read(at)));
        assert_eq!(config, [self.target, self.actual]);
        assert_eq!(self.handle.statistics().and_then(|said| said.free), self.free);
    }
}

fn rings(world: &mut World) -> [Ring; 5] {
    [0, 1, 2, 3, 4].map(|index| Ring::new(world, RINGS + index * RING_STEP, SIZE))
}

/// Inputs that reach far, by their names.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let many = Script::new().bytes(&[0, 0, 200]).bytes(&[5; 64]).done();
    let reports =
        Script::new().bytes(&[5, 0, 1]).half(0x1000).bytes(&[1, 1, 3, 1]).half(0x3001).bytes(&[1, 0, 2, 0]).done();
    vec![("a-long-list", many), ("reports", reports)]
}
