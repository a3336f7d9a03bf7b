//! Frames of a network card in both directions, with their headers, against a model of section 5.1.6.

mod checks;
mod model;
mod steps;
mod wire;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vmcell::event::TURN_BYTES;
use vmcell::net::{NicBackend, Offloads, VnetHeader};
use vmcell::virtio::VirtioDevice;
use vmcell::virtio::spec::ring::{DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::spec::{feature, mmio, status};
use vmcell::{Limits, Nic, NicHandle, RateLimit};

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
    /// Since when the guest may send a frame a second, behind so many in all.
    budget: Option<(Instant, u64)>,
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
            budget: None,
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
        if let Some((since, burst)) = self.budget {
            // The last turn before there was a limit may have taken one ahead.
            let (sent, most) = (self.handle.metrics().sent_frames, burst + since.elapsed().as_secs() + 1);
            assert!(sent <= most, "the guest sent {sent} frames, its limits allow for {most}");
        }
        self.look();
        again
    }

    /// Nothing is left but room for frames, and whatever happened before, after a reset all is well.
    fn end(mut self) {
        self.resume(&mut Input::new(&[]));
        lock(&self.wire).room = u8::MAX;
        self.lift_limits();
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
        ("limited", {
            let few = send(send(send(begin(0).bytes(&[15, 2, 1, 0, 0, 0, 1]))));
            send(few.bytes(&[11, 9, 255, 13, 14, 1, 11, 15, 2, 0, 0, 0, 3, 1])).bytes(&[11]).done()
        }),
        ("no-link", send(begin(0).bytes(&[15, 0])).bytes(&[11, 15, 0, 11]).done()),
    ]
}
