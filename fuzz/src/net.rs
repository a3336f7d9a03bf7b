//! Frames of a network card in both directions, with their headers, against a model of section 5.1.6.

mod model;
mod wire;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vmcell::event::TURN_BYTES;
use vmcell::net::{NicBackend, Offloads, VnetHeader};
use vmcell::virtio::VirtioDevice;
use vmcell::virtio::spec::ring::{DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::spec::{feature, mmio, status};
use vmcell::{Nic, NicHandle};

use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring, Shape, cut, split, total};
use crate::world::World;
use wire::{Backend, Packet, Wire, lock, without_extras};

/// The card has two pairs of queues. The test's numbers of queues stay the same whether or not the driver knows both.
const PAIRS: usize = 2;
const QUEUES: usize = 5;
const RINGS: [u64; QUEUES] = [0x1000, 0x4000, 0x7000, 0xa000, 0xd000];
const RECEIVE: [usize; PAIRS] = [0, 3];
const TRANSMIT: [usize; PAIRS] = [1, 4];
const CONTROL: usize = 2;
/// Each head of a ring has buffers of its own.
const BUFFERS: [u64; QUEUES] = [0x1_0000, 0x2_0000, 0x2_8000, 0x3_b000, 0x4_3000];
const BUFFER_LENS: [u64; QUEUES] = [0x800, 0x800, 0x40, 0x800, 0x800];
/// What long frames of the guest end with; nobody writes there.
const REST: u64 = 0x2_a000;
const MEMORY: u64 = 0x4_b000;
const SIZES: [u16; QUEUES] = [32, 16, 8, 16, 16];
/// Descriptors of one chain: so many are a head's own.
const SHARE: u16 = 4;
/// The longest packet, which a turn may end with.
const LONGEST: u64 = 12 + 65535 + 18;
/// What the device may hold: the storage of chains, and lists of where a frame goes.
const MOST_HELD: i64 = 512 << 10;
const MOST_STEPS: usize = 200;

const CSUM: u64 = 1 << 0 | 1 << 1;
const TSO: u64 = 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12;
const ECN: u64 = 1 << 9 | 1 << 13;
const MRG_RXBUF: u64 = 1 << 15;
const CTRL_VQ: u64 = 1 << 17;
const ANNOUNCE: u64 = CTRL_VQ | 1 << 21;
const SEVERAL: u64 = CTRL_VQ | 1 << 22;

/// A chain in flight.
struct Open {
    head: u16,
    shape: Shape,
    /// Where the device may write for it.
    may_write: Vec<Range<u64>>,
    /// What a command should be answered by.
    answer: Option<u8>,
    /// How many pairs get frames once it is answered.
    pairs: Option<usize>,
}

struct Test {
    guest: Guest,
    rings: [Ring; QUEUES],
    open: [VecDeque<Open>; QUEUES],
    wire: Arc<Mutex<Wire>>,
    handle: NicHandle,
    features: u64,
    /// The driver knows both pairs.
    several: bool,
    /// So many pairs get frames.
    receiving: usize,
    /// That may change in this round.
    changing: bool,
    /// Frames that each line should get from the guest, in order.
    expected: [VecDeque<Packet>; PAIRS],
    link: bool,
    /// The guest was without a link at some time: frames that it sent may be lost.
    lossy: bool,
    paused: bool,
    hostile: bool,
    /// Which buffers chains lead to may change in the midst of a turn: where the device writes is not looked at.
    blind: bool,
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
    test.end();
}

fn device(wire: &Arc<Mutex<Wire>>) -> (Box<dyn VirtioDevice>, NicHandle) {
    let backend = |line| Box::new(Backend { wire: Arc::clone(wire), line }) as Box<dyn NicBackend>;
    let nic = Nic::backends((0..PAIRS).map(backend)).mac([2, 0, 0, 0, 0, 1]);
    let handle = nic.handle();
    (nic.into_device().expect("the card is well-formed"), handle)
}

fn offloads(features: u64, [checksum, tso4, tso6, ecn]: [u32; 4]) -> Offloads {
    let has = |bit: u32| features & 1 << bit != 0;
    let mut offloads = Offloads::NONE;
    (offloads.checksum, offloads.tso4) = (has(checksum), has(tso4));
    (offloads.tso6, offloads.ecn) = (has(tso6), has(ecn));
    offloads
}

impl Test {
    fn new(input: &mut Input) -> Self {
        let wire = Arc::new(Mutex::new(Wire::new()));
        let (device, handle) = device(&wire);
        let mut world = World::new(&[0..MEMORY]);
        let rings = std::array::from_fn(|index| Ring::new(&mut world, RINGS[index], SIZES[index]));
        let mut test = Self {
            guest: Guest::new(device, world, MOST_HELD),
            rings,
            open: Default::default(),
            wire,
            handle,
            features: 0,
            several: false,
            receiving: 1,
            changing: false,
            expected: Default::default(),
            link: true,
            lossy: false,
            paused: false,
            hostile: false,
            blind: false,
        };
        test.bring_up(input);
        test
    }

    fn bring_up(&mut self, input: &mut Input) {
        let choice = input.byte();
        let mut features = 1 << feature::VERSION_1;
        let options = [
            (1 << feature::RING_EVENT_IDX, choice & 1 != 0),
            (MRG_RXBUF, choice & 2 != 0),
            (CSUM, choice & 4 != 0),
            (TSO, choice & 12 == 12),
            (ECN, choice & 28 == 28),
            (ANNOUNCE, choice & 32 != 0),
            (SEVERAL, choice & 128 != 0),
        ];
        for (mask, _) in options.into_iter().filter(|(_, on)| *on) {
            features |= mask;
        }
        self.features = features;
        (self.several, self.receiving, self.changing) = (choice & 128 != 0, 1, false);
        self.guest.negotiate(features);
        for index in 0..QUEUES {
            let size = if choice & 64 != 0 { SIZES[index] / 2 } else { SIZES[index] };
            self.rings[index] = Ring::new(&mut self.guest.world, RINGS[index], size);
        }
        let rings: Vec<_> = self.order().iter().map(|queue| self.rings[*queue]).collect();
        self.guest.start(&rings);
        (self.paused, self.hostile, self.blind, self.lossy) = (false, false, false, !self.link);
    }

    /// The queues that the driver uses, as the device numbers them.
    fn order(&self) -> &'static [usize] {
        if self.several { &[RECEIVE[0], TRANSMIT[0], RECEIVE[1], TRANSMIT[1], CONTROL] } else { &[0, 1, 2] }
    }

    fn kick(&mut self, queue: usize) {
        if let Some(number) = self.order().iter().position(|used| *used == queue) {
            self.guest.kick(number as u32);
        }
    }

    /// One of the pairs that the driver uses.
    fn pair(&self, input: &mut Input) -> usize {
        usize::from(self.several && input.one_in(2))
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..=2 => self.send(input),
            3 | 4 => self.give_room(input),
            5 | 6 => self.bring(input),
            7 => self.command(input),
            8 => self.wild(input),
            9 | 10 => self.rounds(input),
            11 => self.settle(),
            12 => self.reset(input),
            13 => self.pause(),
            14 => self.resume(input),
            _ => self.host_does(input),
        }
    }

    /// A head that is free, whose descriptors and buffers are its own.
    fn free(&self, queue: usize) -> Option<u16> {
        let heads = (0..self.rings[queue].size).step_by(SHARE.into());
        let is_free = |head: &u16| !self.hostile && !self.open[queue].iter().any(|open| open.head == *head);
        heads.into_iter().find(is_free)
    }

    fn buffer(&self, queue: usize, head: u16) -> u64 {
        BUFFERS[queue] + BUFFER_LENS[queue] * u64::from(head)
    }

    /// Makes a chain available whose buffers are given.
    fn offer(&mut self, queue: usize, head: u16, shape: Shape, answer: Option<u8>) {
        let writable = shape.writable.iter().map(|buffer| (*buffer, DESCRIPTOR_WRITE));
        let buffers: Vec<_> = shape.readable.iter().map(|buffer| (*buffer, 0)).chain(writable).collect();
        for (step, ((gpa, len), flags)) in (0u16..).zip(&buffers) {
            let next = if usize::from(step) + 1 < buffers.len() { DESCRIPTOR_NEXT } else { 0 };
            let descriptor = Descriptor { gpa: *gpa, len: *len, flags: flags | next, next: head + step + 1 };
            self.rings[queue].set(&mut self.guest.world, head + step, descriptor);
        }
        if buffers.is_empty() {
            self.rings[queue].set(&mut self.guest.world, head, Descriptor::default());
        }
        let may_write = shape.writable.iter().map(|(gpa, len)| *gpa..*gpa + u64::from(*len)).collect();
        self.open[queue].push_back(Open { head, shape, may_write, answer, pairs: None });
        self.rings[queue].offer(&mut self.guest.world, head);
    }

    /// A frame of the guest.
    fn send(&mut self, input: &mut Input) {
        let pair = self.pair(input);
        let queue = TRANSMIT[pair];
        let Some(head) = self.free(queue) else { return };
        let at = self.buffer(queue, head);
        let len = model::frame_len(input);
        let header = model::header(input, len);
        let first = input.byte();
        let own = usize::try_from(BUFFER_LENS[queue] * u64::from(SHARE)).expect("it is small");
        let bytes: Vec<u8> =
            header.iter().copied().chain((0..len).map(|at| first.wrapping_add(at as u8))).take(own).collect();
        self.guest.world.write(at, &bytes);
        let whole = header.len() + len;
        let mut shape = Shape { readable: parts(input, at, bytes.len() as u64), ..Shape::default() };
        if whole > bytes.len() {
            shape.readable.push((REST, u32::try_from(whole - bytes.len()).expect("it is short")));
        }
        if input.one_in(16) {
            shape.readable.pop();
            shape.writable.push((at, 1));
        }
        let packet = self.packet(&shape);
        if let Some((header, frame)) = packet
            && model::passes(&header, frame.len(), offloads(self.features, [0, 11, 12, 13]))
        {
            self.expected[pair].push_back((without_extras(header), frame));
        }
        self.offer(queue, head, shape, None);
    }

    /// What a chain's readable bytes are.
    fn packet(&self, shape: &Shape) -> Option<Packet> {
        let len = total(&shape.readable);
        let parts = cut(&shape.readable, 0, len).into_iter();
        let bytes: Vec<u8> = parts.flat_map(|(gpa, len)| self.guest.world.mirror(gpa, len)).copied().collect();
        let header = bytes.first_chunk::<{ VnetHeader::LEN }>()?;
        Some((*header, bytes[VnetHeader::LEN..].to_vec()))
    }

    /// A buffer for frames, which may be an unfit one.
    fn give_room(&mut self, input: &mut Input) {
        let queue = RECEIVE[self.pair(input)];
        let Some(head) = self.free(queue) else { return };
        let at = self.buffer(queue, head);
        let own = BUFFER_LENS[queue] * u64::from(SHARE);
        let len = match input.below(16) {
            0 => u64::from(input.byte() % 32),
            1 => 12,
            2 => 26,
            3..=6 => 64,
            7..=10 => 1526,
            _ => own,
        };
        let mut shape = Shape { writable: parts(input, at, len.min(own)), ..Shape::default() };
        if input.one_in(16) {
            shape.readable.push((at + own - 1, 1));
            shape.writable = vec![(at, 64)];
        }
        self.offer(queue, head, shape, None);
    }

    /// A frame for the guest.
    fn bring(&mut self, input: &mut Input) {
        let line = self.pair(input);
        let len = model::frame_len(input);
        let header = model::header(input, len);
        let first = input.byte();
        let frame = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
        let incoming = &mut lock(&self.wire).lines[line].incoming;
        if incoming.len() < 16 {
            incoming.push_back(((header, frame), input.one_in(2)));
        }
    }

    fn command(&mut self, input: &mut Input) {
        // A driver that has not agreed to it has no such queue.
        let has_queue = self.features & CTRL_VQ != 0;
        let Some(head) = self.free(CONTROL).filter(|_| has_queue) else { return };
        let at = self.buffer(CONTROL, head);
        let bytes = match input.below(4) {
            0 => vec![input.byte(), input.byte()],
            1 => vec![3, 0, input.byte()],
            2 => match input.below(8) {
                0 => vec![4, 0, input.byte(), input.byte()],
                1 => vec![4, 0, 1, 0, 0],
                2 => vec![4, 1, 1, 0],
                count => vec![4, 0, (count % 4) as u8, 0],
            },
            _ => vec![3, 0],
        };
        self.guest.world.write(at, &bytes);
        let writable = if input.one_in(8) { Vec::new() } else { vec![(at + 0x20, 1)] };
        let pairs = match bytes[..] {
            [4, 0, low, high] if self.several && !writable.is_empty() => {
                Some(usize::from(u16::from_le_bytes([low, high]))).filter(|pairs| (1..=PAIRS).contains(pairs))
            }
            _ => None,
        };
        let shape = Shape { readable: vec![(at, u32::try_from(bytes.len()).expect("it is short"))], writable };
        let answer = u8::from(bytes != [3, 0] && pairs.is_none());
        self.offer(CONTROL, head, shape, Some(answer));
        if let Some(open) = self.open[CONTROL].back_mut() {
            open.pairs = pairs;
        }
    }

    /// The driver does what no driver may; from now until the next reset, only what holds for any driver is checked.
    fn wild(&mut self, input: &mut Input) {
        if !self.hostile {
            self.settle();
            self.hostile = true;
        }
        let queue = usize::from(input.below(if self.several { QUEUES as u16 } else { 3 }));
        let index = input.below(32) % self.rings[queue].size;
        let descriptor = Descriptor::wild(input, index, RINGS[queue], BUFFERS[0]..REST);
        self.blind |= descriptor.may_change(RINGS[0]..BUFFERS[0]);
        self.rings[queue].set(&mut self.guest.world, index, descriptor);
        if input.one_in(2) {
            let count = if input.one_in(4) { input.below(40) } else { 1 };
            for _ in 0..count {
                let head = if input.one_in(32) { input.half() } else { input.below(32) % self.rings[queue].size };
                self.rings[queue].offer(&mut self.guest.world, head);
                let (shape, may_write) = (Shape::default(), Vec::new());
                self.open[queue].push_back(Open { head, shape, may_write, answer: None, pairs: None });
            }
        }
    }

    fn rounds(&mut self, input: &mut Input) {
        let choice = input.byte();
        (0..QUEUES).filter(|queue| choice & 1 << queue != 0).for_each(|queue| self.kick(queue));
        for _ in 0..=choice >> 6 {
            self.round();
        }
    }

    fn settle(&mut self) {
        (0..QUEUES).for_each(|queue| self.kick(queue));
        let rest = (0..5000).any(|_| !self.round());
        assert!(rest, "the device never comes to rest");
    }

    fn round(&mut self) -> bool {
        lock(&self.wire).moved = 0;
        self.changing = self.open[CONTROL].iter().any(|open| open.pairs.is_some());
        let allowed = self.allowed();
        let again = self.guest.round(&allowed);
        let moved = lock(&self.wire).moved;
        // Each direction stops soon after the turn is over.
        let most = TURN_BYTES + 2 * LONGEST;
        assert!(moved <= most, "one turn moved {moved} bytes, allowed are {most}");
        assert!(!self.paused || moved == 0, "a device that is paused moved {moved} bytes");
        self.look();
        again
    }

    fn allowed(&mut self) -> Vec<Range<u64>> {
        if self.blind {
            return vec![0..MEMORY];
        }
        let mut allowed: Vec<_> = self.rings.iter().map(Ring::used_range).collect();
        for (ring, open) in self.rings.iter().zip(&mut self.open) {
            for open in open {
                if self.hostile {
                    let shape = ring.walk(&self.guest.world, open.head, 256).unwrap_or_default();
                    open.may_write.extend(shape.writable.iter().map(|(gpa, len)| *gpa..*gpa + u64::from(*len)));
                    open.may_write.dedup();
                }
                allowed.extend(open.may_write.iter().cloned());
            }
        }
        allowed
    }

    /// Looks at what the device has done.
    fn look(&mut self) {
        let needs_reset = self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET != 0;
        assert!(self.hostile || !needs_reset, "the device needs a reset though its driver is well-behaved");
        let mut filled: [Vec<_>; PAIRS] = Default::default();
        for queue in 0..QUEUES {
            while let Some((head, written)) = self.rings[queue].take_used(&self.guest.world) {
                let position = self.open[queue].iter().position(|open| u32::from(open.head) == head);
                let Some(open) = position.and_then(|position| self.open[queue].remove(position)) else {
                    assert!(self.hostile, "the chain {head} of queue {queue} was completed, and is not in flight");
                    return;
                };
                if self.hostile {
                    let other = self.open[queue].iter_mut().find(|other| other.head == open.head);
                    other.into_iter().for_each(|other| other.may_write.extend(open.may_write.iter().cloned()));
                } else if let Some(pair) = RECEIVE.iter().position(|receive| *receive == queue) {
                    filled[pair].push((open, written));
                } else {
                    self.check_answer(&open, written);
                    self.receiving = open.pairs.unwrap_or(self.receiving);
                }
            }
        }
        if self.hostile {
            lock(&self.wire).clear();
            self.expected = Default::default();
        } else {
            (0..PAIRS).zip(filled).for_each(|(pair, filled)| self.check_received(pair, filled));
            let delivered = lock(&self.wire).lines.iter().all(|line| line.delivered.is_empty());
            assert!(delivered, "a frame was delivered, and stands in no buffer");
            self.check_sent();
            self.check_dropped();
        }
    }

    fn check_answer(&self, open: &Open, written: u32) {
        let Some(answer) = open.answer else {
            return assert_eq!(written, 0, "bytes written to a frame of the guest's own");
        };
        assert_eq!(u64::from(written), total(&open.shape.writable), "bytes of an answer");
        for (gpa, _) in &open.shape.writable {
            assert_eq!(self.guest.world.mirror(*gpa, 1), [answer], "an answer to a command");
        }
    }

    /// Frames stand in the buffers of their pair as they came, those of each line in order.
    fn check_received(&mut self, pair: usize, filled: Vec<(Open, u32)>) {
        let mut filled = filled.into_iter().filter(|(open, written)| {
            let room = total(&open.shape.writable);
            assert!(u64::from(*written) <= room, "{written} bytes were written to a buffer of {room}");
            *written > 0
        });
        let mut wire = lock(&self.wire);
        while let Some((first, written)) = filled.next() {
            let mut bytes = self.written(&first, written);
            let count = u16::from_le_bytes([bytes[10], bytes[11]]);
            assert!(count == 1 || self.features & MRG_RXBUF != 0, "a frame has {count} buffers, one is allowed");
            for _ in 1..count {
                let (open, written) = filled.next().expect("a frame has fewer buffers than its header says");
                assert!(total(&first.shape.writable) >= 12, "the first buffer has no room for the header");
                bytes.extend(self.written(&open, written));
            }
            let is_it = |(header, frame): &Packet| bytes[..10] == header[..10] && bytes[12..] == *frame;
            let (receiving, changing) = (self.receiving, self.changing);
            let mut lines = wire.lines.iter_mut().enumerate();
            let found = lines.find_map(|(number, line)| {
                // Where the frames of a line go may change in between, and which of two queues was filled first is not known.
                let next = if changing { line.delivered.len() } else { 1 };
                let position = line.delivered.iter().take(next).position(is_it)?;
                line.delivered.remove(position).filter(|_| changing || number % receiving == pair)
            });
            assert!(found.is_some(), "a frame on pair {pair} is not the next of any line that goes there");
        }
    }

    fn written(&self, open: &Open, written: u32) -> Vec<u8> {
        let parts = cut(&open.shape.writable, 0, written.into()).into_iter();
        parts.flat_map(|(gpa, len)| self.guest.world.mirror(gpa, len)).copied().collect()
    }

    /// What the guest has sent is what the wire got, but for what was sent without a link.
    fn check_sent(&mut self) {
        let mut wire = lock(&self.wire);
        for (line, expected) in wire.lines.iter_mut().zip(&mut self.expected) {
            for (header, frame) in line.sent.drain(..) {
                loop {
                    let expected = expected.pop_front().expect("the guest has not sent that frame, or it may not pass");
                    if expected == (header, frame.clone()) {
                        break;
                    }
                    assert!(self.lossy, "the frame that was sent next is {:?}, and should be {:?}", header, expected.0);
                }
            }
        }
    }

    /// What was lost was lost for a reason.
    fn check_dropped(&mut self) {
        let mut wire = lock(&self.wire);
        let guest = offloads(self.features, [1, 7, 8, 9]);
        assert_eq!(wire.guest, guest, "what the guest copes with");
        // There was at least as much room as there is still.
        let fits = |open: &&Open| open.shape.readable.is_empty() && total(&open.shape.writable) >= 12;
        let room = RECEIVE
            .map(|queue| -> u64 { self.open[queue].iter().filter(fits).map(|open| total(&open.shape.writable)).sum() });
        for (line, (header, frame)) in wire.dropped.drain(..) {
            let room = if self.changing { room[0].min(room[1]) } else { room[line % self.receiving] };
            let reason = !model::passes(&header, frame.len(), guest) || 12 + frame.len() as u64 > room;
            assert!(
                reason || self.features & MRG_RXBUF == 0,
                "a frame of {} bytes was lost for no reason",
                frame.len()
            );
        }
    }

    fn reset(&mut self, input: &mut Input) {
        let allowed = self.allowed();
        self.guest.write(mmio::STATUS, 0);
        self.guest.world.adopt_changes(&allowed);
        self.guest.settle(&[]);
        self.open = Default::default();
        self.expected = Default::default();
        lock(&self.wire).clear();
        self.bring_up(input);
    }

    fn pause(&mut self) {
        let allowed = self.allowed();
        let paused = self.guest.call(|transport| transport.pause(std::time::Duration::ZERO)).is_ok();
        self.guest.world.adopt_changes(&allowed);
        assert!(paused, "nothing is ever in flight for long, so a pause does not fail");
        self.paused = true;
        self.look();
        self.guest.settle(&[]);
    }

    fn resume(&mut self, input: &mut Input) {
        if self.paused && input.one_in(2) && self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET == 0 {
            let (device, handle) = device(&self.wire);
            self.guest.exchange(device);
            self.handle = handle;
            self.handle.set_link(self.link);
        }
        self.guest.call(|transport| transport.resume());
        self.paused = false;
    }

    fn host_does(&mut self, input: &mut Input) {
        match input.below(4) {
            0 => {
                self.link = !self.link;
                self.lossy = true;
                self.handle.set_link(self.link);
            }
            1 => self.handle.announce(),
            _ => lock(&self.wire).room = if input.one_in(2) { u8::MAX } else { input.byte() % 8 },
        }
    }

    /// Nothing is left but room for frames, and whatever happened before, after a reset all is well.
    fn end(mut self) {
        self.resume(&mut Input::new(&[]));
        lock(&self.wire).room = u8::MAX;
        self.settle();
        if !self.hostile {
            let mut done = [TRANSMIT[0], TRANSMIT[1], CONTROL].into_iter();
            assert!(done.all(|queue| self.open[queue].is_empty()), "chains were never completed");
            let left: usize = self.expected.iter().map(VecDeque::len).sum();
            assert!(self.lossy || left == 0, "{left} frames were never sent");
        }
        self.link = true;
        self.handle.set_link(true);
        self.reset(&mut Input::new(&[]));
        self.send(&mut Input::new(&[1, 60]));
        self.give_room(&mut Input::new(&[15]));
        self.bring(&mut Input::new(&[1, 60]));
        self.settle();
        assert!(self.open.iter().all(VecDeque::is_empty), "a frame after a reset was not sent, or not received");
        assert!(self.expected.iter().all(VecDeque::is_empty), "a frame after a reset was not sent");
    }
}

/// Cuts a buffer in at most as many parts as a head has descriptors, less one.
fn parts(input: &mut Input, gpa: u64, len: u64) -> Vec<(u64, u32)> {
    let mut parts = split(input, gpa, len);
    let rest = parts.split_off(parts.len().min(usize::from(SHARE) - 2));
    if let Some((start, _)) = rest.first() {
        parts.push((*start, u32::try_from(gpa + len - start).expect("it is short")));
    }
    parts
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begin = |features: u8| Script::new().bytes(&[features]);
    let send = |script: Script| script.bytes(&[0, 1, 60, 0, 7, 5, 0]);
    let room = |script: Script, kind: u8| script.bytes(&[3, kind, 5, 0]);
    let bring = |script: Script, through: u8| script.bytes(&[5, 1, 60, 0, 7, through]);
    let many = |script| (0..6).fold(script, |script, _| room(script, 3));
    let long = |script: Script| script.bytes(&[5, 14]).half(300).bytes(&[0, 7, 0]);
    vec![
        ("both-ways", bring(room(send(begin(0)), 15), 0).bytes(&[11]).done()),
        ("merged", long(many(begin(2))).bytes(&[11]).done()),
        ("through-a-descriptor", bring(room(begin(2), 15), 1).bytes(&[11]).done()),
        ("segments", begin(30).bytes(&[0, 1, 200, 66, 2]).bytes(&[9; 10]).bytes(&[7, 5, 0, 11]).done()),
        ("pause-and-exchange", many(begin(2)).bytes(&[9, 1, 13, 14, 1, 11]).done()),
        ("malformed-between-pauses", {
            let unfit = room(begin(2), 3).bytes(&[3, 0, 0]);
            room(unfit, 3).bytes(&[9, 1, 13, 14, 0, 11]).done()
        }),
        ("announces", begin(32).bytes(&[15, 1, 11, 7, 3, 0, 11]).done()),
        ("several-pairs", {
            let both = begin(128 | 2).bytes(&[7, 2, 6, 1, 11]);
            let room = both.bytes(&[3, 1, 15, 5, 0]).bytes(&[3, 0, 15, 5, 0]);
            let brought = room.bytes(&[5, 1, 1, 60, 0, 7, 1]).bytes(&[5, 0, 1, 60, 0, 8, 0]).bytes(&[11]);
            let sent = brought.bytes(&[0, 1, 1, 60, 0, 7, 5, 0]).bytes(&[0, 0, 1, 60, 0, 7, 5, 0]);
            // While there is less than one for each, and across an exchange.
            sent.bytes(&[9, 31, 7, 2, 5, 1, 11, 5, 1, 1, 60, 0, 7, 1, 11, 13, 14, 1, 11]).done()
        }),
        ("no-link", send(begin(0).bytes(&[15, 0])).bytes(&[11, 15, 0, 11]).done()),
    ]
}
