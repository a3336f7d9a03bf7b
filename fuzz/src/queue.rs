//! A queue and its chains, below any device: what is popped, what is completed and in which order, who is interrupted.

use std::sync::Arc;

use vmcell::testing::{IoRig, RecordingInterrupt};
use vmcell::virtio::spec::ring::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::{Chain, Queue, Segment};

use crate::alloc::Meter;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring, Shape, cut, total};
use crate::world::World;

const RINGS: u64 = 0x1000;
/// Where tables of indirect descriptors are: apart from all that the device writes.
const TABLES: u64 = 0x3800;
const BUFFERS: u64 = 0x4000;
/// Two regions that touch, a hole, and one more.
const REGIONS: [std::ops::Range<u64>; 3] = [0..0x8000, 0x8000..0xa000, 0xc000..0xd000];
/// The most descriptors that the queue offers.
const MAX_SIZE: u16 = 32;
/// What a queue may hold: the storage of chains, for as many as it has descriptors, and some more.
const MOST_HELD: i64 = 64 << 10;
const MOST_STEPS: usize = 300;

/// A chain that was taken, and what it should be.
struct Taken {
    chain: Chain,
    head: u16,
    shape: Shape,
    /// When it was taken, for what is put back.
    position: u16,
}

struct Test {
    world: World,
    ring: Ring,
    queue: Queue,
    interrupt: Arc<RecordingInterrupt>,
    rig: IoRig,
    meter: Meter,
    model: Model,
    taken: Vec<Taken>,
}

/// What the device's half should be like.
#[derive(Default)]
struct Model {
    event_idx: bool,
    next_avail: u16,
    /// The driver's index when it was looked at last, which is done when all that it offered then was taken.
    seen_avail: u16,
    next_used: u16,
    last_signal: u16,
    in_flight: u16,
    /// Heads of chains that were dropped, and are completed at the next occasion.
    lost: Vec<u16>,
    signals: u32,
}

enum Next {
    Chain(u16, Shape),
    Empty,
    Refused,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut test = Test::new(&mut input);
    for _ in 0..MOST_STEPS {
        if input.is_over() || !test.step(&mut input) {
            break;
        }
        test.check_used();
    }
    test.end();
}

impl Test {
    fn new(input: &mut Input) -> Self {
        let mut world = World::new(&REGIONS);
        let event_idx = input.one_in(2);
        let size = 1 << input.below(6);
        let ring = Ring::new(&mut world, RINGS, size);
        let interrupt = RecordingInterrupt::new();
        let (memory, config) = (world.memory().clone(), ring.config(MAX_SIZE));
        let mut meter = Meter::new(MOST_HELD);
        let made = meter.run(|| Queue::new(&config, &memory, 0, event_idx, interrupt.clone()));
        let queue = made.expect("the queue is well-formed");
        let model = Model { event_idx, ..Model::default() };
        Self { world, ring, queue, interrupt, rig: IoRig::new(), meter, model, taken: Vec::new() }
    }

    /// Does one thing; says whether the queue goes on.
    fn step(&mut self, input: &mut Input) -> bool {
        match input.below(16) {
            0..=2 => self.set_descriptor(input),
            3 => self.set_indirect(input),
            4..=6 => self.offer(input),
            7 => self.move_index(input),
            8 => self.set_interrupts(input),
            9 | 10 => return self.pop(),
            11 => self.complete(input),
            12 => self.access(input),
            13 => self.forget(input),
            14 => self.put_back(),
            _ => self.notify(),
        }
        true
    }

    fn set_descriptor(&mut self, input: &mut Input) {
        let index = input.below(MAX_SIZE);
        let descriptor = descriptor(input, index);
        self.ring.set(&mut self.world, index % self.ring.size, descriptor);
    }

    fn set_indirect(&mut self, input: &mut Input) {
        let index = input.below(64);
        let descriptor = descriptor(input, index);
        self.world.write(TABLES + 16 * u64::from(index), &descriptor.to_bytes());
    }

    fn offer(&mut self, input: &mut Input) {
        let head = if input.one_in(32) { input.half() } else { input.below(MAX_SIZE) % self.ring.size };
        self.ring.offer(&mut self.world, head);
    }

    fn move_index(&mut self, input: &mut Input) {
        let index = match input.below(8) {
            0 => input.half(),
            1 => self.ring.avail_index.wrapping_sub(1),
            steps => self.ring.avail_index.wrapping_add(steps),
        };
        self.ring.set_avail_index(&mut self.world, index);
    }

    fn set_interrupts(&mut self, input: &mut Input) {
        self.world.write(self.ring.avail, &u16::from(input.byte()).to_le_bytes());
        let event = self.model.next_used.wrapping_add(input.below(8)).wrapping_sub(3);
        self.world.write(self.ring.used_event(), &event.to_le_bytes());
    }

    /// Takes a chain, which has no buffers if it is malformed.
    fn pop(&mut self) -> bool {
        let expected = self.model.pop(&mut self.world, &self.ring);
        let (queue, rig) = (&mut self.queue, &mut self.rig);
        let mut io = rig.turn_without_clock();
        let found = self.meter.run(|| queue.pop(&mut io));
        self.adopt_hints();
        match (expected, found) {
            (Next::Refused, Err(_)) => return false,
            (Next::Empty, Ok(None)) => {}
            (Next::Chain(head, shape), Ok(Some(chain))) => {
                check_shape(&chain, &shape);
                let position = self.model.next_avail.wrapping_sub(1);
                self.taken.push(Taken { chain, head, shape, position });
            }
            (expected, found) => {
                let found =
                    found.map(|chain| chain.map(|chain| (chain.readable().to_vec(), chain.writable().to_vec())));
                panic!("popped {found:?}, and should have popped {}", expected.describe());
            }
        }
        true
    }

    /// Takes one of the chains that are in flight, with its place.
    fn pick(&mut self, input: &mut Input) -> Option<Taken> {
        let count = u16::try_from(self.taken.len()).unwrap_or(u16::MAX).min(256);
        (count > 0).then(|| self.taken.remove(usize::from(input.below(count))))
    }

    fn complete(&mut self, input: &mut Input) {
        let Some(taken) = self.pick(input) else { return };
        let room = taken.chain.writable_len();
        let written = if input.one_in(4) { input.word() } else { room };
        self.model.publish(&mut self.world, &self.ring, taken.head, written.min(room));
        let queue = &mut self.queue;
        self.meter.run(|| queue.complete(taken.chain, written));
        self.adopt_hints();
    }

    fn forget(&mut self, input: &mut Input) {
        let Some(taken) = self.pick(input) else { return };
        self.model.lost.push(taken.head);
        self.meter.run(|| drop(taken.chain));
    }

    /// Only what was taken last can be put back; anything else is completed.
    fn put_back(&mut self) {
        let Some(taken) = self.taken.pop() else { return };
        let is_last = self.model.next_avail == taken.position.wrapping_add(1);
        if is_last {
            self.model.next_avail = taken.position;
            self.model.in_flight -= 1;
        } else {
            self.model.publish(&mut self.world, &self.ring, taken.head, 0);
        }
        let queue = &mut self.queue;
        let put_back = self.meter.run(|| queue.put_back(taken.chain)).is_ok();
        assert_eq!(put_back, is_last, "whether a chain is the last one that was taken");
    }

    fn notify(&mut self) {
        self.model.notify(&mut self.world, &self.ring);
        let queue = &mut self.queue;
        self.meter.run(|| queue.notify());
        self.adopt_hints();
        assert_eq!(self.interrupt.used_count(), self.model.signals, "interrupts");
    }

    /// Reads or writes the buffers of a chain, inside of them or not.
    fn access(&mut self, input: &mut Input) {
        let Some(taken) = self.pick(input) else { return };
        let (offset, len) = if input.one_in(8) {
            (input.word(), input.half())
        } else {
            (u32::from(input.byte()), u16::from(input.byte()))
        };
        let writes = input.one_in(2);
        let buffers = if writes { &taken.shape.writable } else { &taken.shape.readable };
        let fits = u64::from(offset) + u64::from(len) <= total(buffers);
        let parts = cut(buffers, offset.into(), len.into());
        let mut bytes = vec![input.byte(); len.into()];
        if writes {
            let written = self.meter.run(|| taken.chain.write(offset, &bytes)).is_ok();
            assert_eq!(written, fits, "a write of {len} bytes at {offset} of {buffers:?}");
            for (gpa, len) in parts.into_iter().filter(|_| fits) {
                self.world.expect(gpa, &vec![bytes[0]; usize::try_from(len).expect("it is below 65536")]);
            }
        } else {
            let read = self.meter.run(|| taken.chain.read(offset, &mut bytes)).is_ok();
            assert_eq!(read, fits, "a read of {len} bytes at {offset} of {buffers:?}");
            let expected: Vec<u8> =
                parts.iter().flat_map(|(gpa, len)| self.world.mirror(*gpa, *len)).copied().collect();
            assert!(!fits || bytes == expected, "a read of {len} bytes at {offset} of {buffers:?}");
        }
        self.taken.push(taken);
        self.taken.sort_by_key(|taken| self.model.next_avail.wrapping_sub(taken.position));
        self.taken.reverse();
    }

    /// Whether the device wants to be rung is not looked at.
    fn adopt_hints(&mut self) {
        self.world.adopt(self.ring.used, 2);
        self.world.adopt(self.ring.avail_event(), 2);
    }

    /// What is completed is what should be, in that order.
    fn check_used(&mut self) {
        let index = self.world.read(self.ring.used + 2, 2);
        let expected = self.world.mirror(self.ring.used + 2, 2);
        assert_eq!(index, expected, "the used ring's index");
        assert_eq!(self.queue.in_flight(), self.model.in_flight, "chains in flight");
    }

    /// What was taken is dropped, and so completed.
    fn end(mut self) {
        for taken in std::mem::take(&mut self.taken) {
            self.model.lost.push(taken.head);
        }
        self.notify();
        assert_eq!(self.queue.in_flight(), 0, "chains in flight at the end");
        self.world.check();
    }
}

impl Model {
    fn pop(&mut self, world: &mut World, ring: &Ring) -> Next {
        self.reclaim(world, ring);
        if self.seen_avail == self.next_avail {
            let index = world.half(ring.avail + 2);
            match index.wrapping_sub(self.next_avail) {
                0 => return Next::Empty,
                offered if offered > ring.size => return Next::Refused,
                _ => self.seen_avail = index,
            }
        }
        let head = world.half(ring.avail + 4 + 2 * u64::from(self.next_avail % ring.size));
        if head >= ring.size || self.in_flight >= ring.size {
            return Next::Refused;
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        self.in_flight += 1;
        // One that breaks the rules has no buffers.
        Next::Chain(head, ring.walk(world, head, MAX_SIZE.into()).unwrap_or_default())
    }

    fn publish(&mut self, world: &mut World, ring: &Ring, head: u16, written: u32) {
        let at = ring.used + 4 + 8 * u64::from(self.next_used % ring.size);
        world.expect(at, &u32::from(head).to_le_bytes());
        world.expect(at + 4, &written.to_le_bytes());
        self.next_used = self.next_used.wrapping_add(1);
        world.expect(ring.used + 2, &self.next_used.to_le_bytes());
        self.in_flight -= 1;
    }

    fn reclaim(&mut self, world: &mut World, ring: &Ring) {
        self.lost.sort_unstable();
        for head in std::mem::take(&mut self.lost) {
            self.publish(world, ring, head, 0);
        }
    }

    /// Interrupts the driver if it wants to hear of what was completed since the last time (2.7.7.2).
    fn notify(&mut self, world: &mut World, ring: &Ring) {
        self.reclaim(world, ring);
        let published = self.next_used.wrapping_sub(self.last_signal);
        self.last_signal = self.next_used;
        let wanted = if self.event_idx {
            let event = world.half(ring.used_event());
            self.next_used.wrapping_sub(event).wrapping_sub(1) < published
        } else {
            world.half(ring.avail) & 1 == 0
        };
        self.signals += u32::from(published > 0 && wanted);
    }
}

impl Next {
    fn describe(&self) -> String {
        match self {
            Self::Chain(head, shape) => format!("the chain {head} with {shape:x?}"),
            Self::Empty => "none".into(),
            Self::Refused => "an error".into(),
        }
    }
}

fn check_shape(chain: &Chain, shape: &Shape) {
    let buffers =
        |segments: &[Segment]| segments.iter().map(|segment| (segment.gpa.0, segment.len)).collect::<Vec<_>>();
    assert_eq!(buffers(chain.readable()), shape.readable, "readable buffers");
    assert_eq!(buffers(chain.writable()), shape.writable, "writable buffers");
    assert_eq!(u64::from(chain.readable_len()), total(&shape.readable));
    assert_eq!(u64::from(chain.writable_len()), total(&shape.writable));
}

fn descriptor(input: &mut Input, index: u16) -> Descriptor {
    let kind = input.byte();
    let flags = match kind % 16 {
        0..=3 => 0,
        4..=7 => DESCRIPTOR_NEXT,
        8..=11 => DESCRIPTOR_WRITE,
        12 | 13 => DESCRIPTOR_WRITE | DESCRIPTOR_NEXT,
        14 => return indirect(input),
        _ => input.half(),
    };
    let gpa = match kind / 16 {
        0..=11 => BUFFERS + u64::from(input.half() % 0x4000),
        12 => 0x7ff0 + u64::from(input.byte() % 32),
        13 => 0x9ff0 + u64::from(input.byte() % 32),
        14 => RINGS + u64::from(input.half() % 0x2000),
        _ => input.long(),
    };
    let len = match input.below(32) {
        0 => 0,
        1 => input.word(),
        2 => input.half().into(),
        len => u32::from(len) * 3,
    };
    let next = if input.one_in(8) { input.half() } else { index.wrapping_add(1) };
    Descriptor { gpa, len, flags, next }
}

fn indirect(input: &mut Input) -> Descriptor {
    let gpa = if input.one_in(16) { input.long() } else { TABLES + 16 * u64::from(input.below(32)) };
    // One that lies over what the device writes reads what is not modelled.
    let gpa = if (0..BUFFERS).contains(&gpa) && gpa < TABLES { TABLES } else { gpa };
    let len = if input.one_in(16) { input.word() } else { 16 * u32::from(input.below(40)) };
    Descriptor { gpa, len, flags: DESCRIPTOR_INDIRECT | u16::from(input.one_in(16)), next: 0 }
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let buffer =
        |script: Script, index: u8, kind: u8, at: u16| script.bytes(&[0, index, kind]).half(at).bytes(&[10, 0]);
    let chain = |script: Script, index: u8| {
        let script = buffer(buffer(script, index, 4, 0x100), index + 1, 8, 0x200);
        script.bytes(&[4, 0, index])
    };
    let pop = |script: Script| script.bytes(&[9]);
    let begin = |event_idx: u8| Script::new().bytes(&[event_idx, 4]);
    let round = |script| pop(chain(script, 0)).bytes(&[12, 0, 0, 1, 4, 1, 7]).bytes(&[11, 0, 0, 15]);
    let malformed = |script: Script| buffer(script, 4, 4, 0x300).bytes(&[0, 5, 0]).half(0).bytes(&[0, 0, 4, 0, 4]);
    vec![
        ("one-round", round(begin(0)).done()),
        ("event-index", round(round(begin(1)).bytes(&[8, 0, 3])).done()),
        ("dropped", pop(chain(begin(0), 0)).bytes(&[13, 0, 15]).done()),
        ("put-back", pop(pop(chain(begin(0), 0)).bytes(&[14])).bytes(&[11, 0, 0]).done()),
        ("malformed", pop(chain(malformed(begin(0)), 0)).done()),
        ("index-jumps", pop(begin(0).bytes(&[7, 0]).half(0x8000)).done()),
        ("indirect", {
            let table =
                begin(0).bytes(&[3, 0, 4]).half(0x10).bytes(&[9, 0]).bytes(&[3, 1, 8]).half(0x20).bytes(&[9, 0]);
            pop(table.bytes(&[0, 0, 14, 0, 0, 0, 2, 0]).bytes(&[4, 0, 0])).bytes(&[11, 0, 0]).done()
        }),
    ]
}
