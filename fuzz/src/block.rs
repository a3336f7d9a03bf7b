//! Block requests, from the queue to the disk and back, against a model of section 5.2.6.

mod model;

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use vmcell::block::DiskInfo;
use vmcell::event::TURN_BYTES;
use vmcell::virtio::VirtioDevice;
use vmcell::virtio::spec::ring::{DESCRIPTOR_INDIRECT, DESCRIPTOR_NEXT, DESCRIPTOR_WRITE};
use vmcell::virtio::spec::{feature, mmio, status};
use vmcell::{Disk, DiskHandle, Limits, RateLimit};

use crate::disk::{Backend, Behaviour, Medium, content, lock};
use crate::guest::Guest;
use crate::input::{Input, Script};
use crate::ring::{Descriptor, Ring, Shape, cut, split, total};
use crate::world::{PATTERN, World};
use model::{Answer, Rules};

const RING: u64 = 0x1000;
/// Each well-formed request has a place of its own.
const PLACES: u64 = 0x4000;
const PLACE_LEN: u64 = 0x3000;
const PLACE_COUNT: usize = 8;
/// Where tables of indirect descriptors are, one a place.
const TABLES: u64 = 0x1_c000;
const MEMORY: u64 = 0x2_0000;
const CAPACITY: u64 = 128 << 10;
const FEATURE_FLUSH: u32 = 9;
/// What the device may hold: its slots, and the storage of as many chains as the queue has.
const MOST_HELD: i64 = 1 << 20;
const MOST_STEPS: usize = 200;

/// A request in flight.
struct Open {
    head: u16,
    /// `None` for one that is not well-formed, or that changes meanwhile.
    request: Option<Request>,
    /// Where the device may write for it.
    may_write: Vec<Range<u64>>,
}

struct Request {
    place: usize,
    shape: Shape,
    answer: Answer,
    /// The data of a read as they are now; `None` if another request may change them.
    data: Option<Vec<u8>>,
}

struct Test {
    guest: Guest,
    /// Sets limits.
    handle: DiskHandle,
    ring: Ring,
    medium: Arc<Mutex<Medium>>,
    rules: Rules,
    features: u64,
    open: Vec<Open>,
    /// Parts of the disk that requests in flight change, or may have changed.
    uncertain: Vec<Range<u64>>,
    /// What the disk holds apart from those.
    disk: Vec<u8>,
    paused: bool,
    /// The driver has done what no driver may, so that the device may need a reset.
    hostile: bool,
    /// Which chains there are, or which buffers they lead to, may change in the midst of a turn: where the device writes is not looked at.
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

fn device(medium: &Arc<Mutex<Medium>>, read_only: bool) -> (Box<dyn VirtioDevice>, DiskHandle) {
    let disk = Disk::backend(Backend(Arc::clone(medium))).read_only(read_only).serial("fuzz");
    let handle = disk.handle();
    (disk.into_device().expect("the disk is well-formed"), handle)
}

impl Test {
    fn new(input: &mut Input) -> Self {
        let read_only = input.one_in(8);
        let block = 512u64 << input.below(4);
        let mut info = DiskInfo::new(CAPACITY);
        info.block_size = u32::try_from(block).expect("it is small");
        info.max_transfer = block << input.below(8);
        info.max_range = block << input.below(8);
        static DISK: OnceLock<Vec<u8>> = OnceLock::new();
        let disk = DISK.get_or_init(|| (0..CAPACITY).map(content).collect()).clone();
        let medium = Medium { bytes: disk.clone(), info: Some(info), ..Medium::default() };
        let medium = Arc::new(Mutex::new(medium));
        let mut world = World::new(&[0..MEMORY]);
        let ring = Ring::new(&mut world, RING, 32);
        let (device, handle) = device(&medium, read_only);
        let guest = Guest::new(device, world, MOST_HELD);
        let rules = Rules { read_only, block: block / 512, capacity: CAPACITY / 512 };
        let (open, uncertain) = (Vec::new(), Vec::new());
        let mut test = Self {
            guest,
            handle,
            ring,
            medium,
            rules,
            features: 0,
            open,
            uncertain,
            disk,
            paused: false,
            hostile: false,
            blind: false,
        };
        test.bring_up(input);
        test
    }

    fn bring_up(&mut self, input: &mut Input) {
        let choice = input.byte();
        let flush = choice & 1 == 0;
        let event_idx = choice & 2 != 0;
        self.features = 1 << feature::VERSION_1 | u64::from(flush) << FEATURE_FLUSH;
        self.features |= u64::from(event_idx) << feature::RING_EVENT_IDX;
        let mut medium = lock(&self.medium);
        medium.write_through = !flush;
        medium.behaviour = Behaviour { room: 32, ..Behaviour::default() };
        drop(medium);
        self.guest.negotiate(self.features);
        let size = 1 << (2 + input.below(4));
        self.ring = Ring::new(&mut self.guest.world, RING, size);
        self.guest.start(&[self.ring]);
        (self.hostile, self.blind) = (false, false);
        self.paused = false;
    }

    fn step(&mut self, input: &mut Input) {
        match input.below(16) {
            0..=5 => self.request(input),
            6 => self.descriptor(input),
            7 => self.offer_anything(input),
            8 | 9 => self.rounds(input.below(4).into()),
            10 => self.settle(),
            11 => self.reset(input),
            12 => self.pause(),
            13 => self.resume(input),
            14 => self.behave(input),
            _ if input.one_in(2) => self.touch_config(input),
            _ => self.limit(input),
        }
    }

    /// A request whose form is well-formed, if its content may not be.
    fn request(&mut self, input: &mut Input) {
        let taken =
            |place: usize| self.open.iter().filter_map(|open| open.request.as_ref()).any(|open| open.place == place);
        let Some(place) = (0..PLACE_COUNT).find(|place| !taken(*place)) else { return };
        if self.hostile || self.open.len() >= usize::from(self.ring.size) {
            return;
        }
        let at = PLACES + PLACE_LEN * place as u64;
        let (kind, bytes) = model::readable_bytes(input, self.rules);
        let writable = model::writable_len(input, kind);
        let filler = vec![PATTERN; usize::try_from(PLACE_LEN).expect("it is small")];
        self.guest.world.write(at, &filler);
        self.guest.world.write(at, &bytes);
        // The readable bytes come first, and never meet the writable ones.
        let readable = split(input, at, bytes.len() as u64);
        let shape = Shape { readable, writable: split(input, at + 0x1800, writable) };
        let Some(head) = self.lay_out(input, place, &shape) else { return };
        let answer = self.rules.answer(&bytes, writable);
        let data = self.expected_data(&answer);
        self.uncertain.extend(answer.changes.iter().cloned());
        self.forget_data(&answer.changes);
        let may_write = shape.writable.iter().map(|(gpa, len)| *gpa..*gpa + u64::from(*len)).collect();
        self.open.push(Open { head, request: Some(Request { place, shape, answer, data }), may_write });
        self.ring.offer(&mut self.guest.world, head);
    }

    fn expected_data(&self, answer: &Answer) -> Option<Vec<u8>> {
        let overlaps =
            |range: &Range<u64>| self.uncertain.iter().any(|other| other.start < range.end && range.start < other.end);
        let range = answer.reads.clone().filter(|range| !overlaps(range))?;
        Some(self.disk[usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?].to_vec())
    }

    /// What reads in flight find is open if another request changes it meanwhile.
    fn forget_data(&mut self, changes: &[Range<u64>]) {
        for request in self.open.iter_mut().filter_map(|open| open.request.as_mut()) {
            let meets = |read: &Range<u64>| changes.iter().any(|part| part.start < read.end && read.start < part.end);
            if request.answer.reads.as_ref().is_some_and(meets) {
                request.data = None;
            }
        }
    }

    /// Writes a chain's descriptors, in the queue's table if there is room, or in a table of the place.
    fn lay_out(&mut self, input: &mut Input, place: usize, shape: &Shape) -> Option<u16> {
        let buffers: Vec<_> = shape
            .readable
            .iter()
            .map(|buffer| (*buffer, 0))
            .chain(shape.writable.iter().map(|buffer| (*buffer, DESCRIPTOR_WRITE)))
            .collect();
        let slots = self.ring.size / PLACE_COUNT as u16;
        let (head, room) = if slots == 0 {
            // Fewer descriptors than places: one each.
            (u16::try_from(place).ok().filter(|place| *place < self.ring.size)?, 1)
        } else {
            (place as u16 * slots, slots)
        };
        let indirect = buffers.len() > usize::from(room) || input.one_in(3);
        let world = &mut self.guest.world;
        let table = TABLES + 0x400 * place as u64;
        for (index, ((gpa, len), flags)) in (0u16..).zip(&buffers) {
            let next = if usize::from(index) + 1 < buffers.len() { DESCRIPTOR_NEXT } else { 0 };
            let descriptor = Descriptor { gpa: *gpa, len: *len, flags: flags | next, next: index + 1 };
            if indirect {
                world.write(table + 16 * u64::from(index), &descriptor.to_bytes());
            } else {
                self.ring.set(world, head + index, Descriptor { next: head + index + 1, ..descriptor });
            }
        }
        if buffers.is_empty() {
            return None;
        }
        if indirect {
            let len = 16 * u32::try_from(buffers.len()).expect("they are few");
            self.ring.set(world, head, Descriptor { gpa: table, len, flags: DESCRIPTOR_INDIRECT, next: 0 });
        }
        Some(head)
    }

    fn descriptor(&mut self, input: &mut Input) {
        self.be_hostile();
        let index = input.below(32) % self.ring.size;
        let descriptor = Descriptor::wild(input, index, RING, PLACES..MEMORY);
        self.blind |= descriptor.may_change(RING..PLACES) || descriptor.may_change(TABLES..MEMORY);
        self.ring.set(&mut self.guest.world, index, descriptor);
        if input.one_in(2) {
            // Something that looks like a header.
            let mut header = [0; 16];
            header[0] = [0, 1, 4, 8, 11, 13][usize::from(input.below(6))];
            header[8] = input.byte();
            self.guest.world.write(descriptor.gpa, &header);
        }
    }

    fn offer_anything(&mut self, input: &mut Input) {
        self.be_hostile();
        let count = if input.one_in(4) { input.below(40) } else { 1 };
        for _ in 0..count {
            let head = if input.one_in(32) { input.half() } else { input.below(32) % self.ring.size };
            self.ring.offer(&mut self.guest.world, head);
            self.open.push(Open { head, request: None, may_write: Vec::new() });
        }
        if input.one_in(32) {
            let index = input.half();
            // It may make chains available that were offered long ago.
            self.blind = true;
            self.ring.set_avail_index(&mut self.guest.world, index);
        }
    }

    /// From now until the next reset, only what holds for any driver is checked.
    fn be_hostile(&mut self) {
        if !self.hostile {
            self.settle();
            self.hostile = true;
        }
    }

    fn rounds(&mut self, count: usize) {
        self.guest.kick(0);
        for _ in 0..=count {
            self.round();
        }
    }

    fn round(&mut self) -> bool {
        lock(&self.medium).moved = 0;
        let allowed = self.allowed();
        let again = self.guest.round(&allowed);
        let moved = lock(&self.medium).moved;
        let most = TURN_BYTES + lock(&self.medium).info.expect("it is set").max_transfer;
        assert!(moved <= most, "one turn moved {moved} bytes, allowed are {most}");
        assert!(!self.paused || moved == 0, "a device that is paused moved {moved} bytes");
        self.take_used();
        again
    }

    /// Where the device may write now. What a hostile driver may have changed is looked at anew.
    fn allowed(&mut self) -> Vec<Range<u64>> {
        if self.hostile {
            for open in &mut self.open {
                let shape = self.ring.walk(&self.guest.world, open.head, 256).unwrap_or_default();
                open.may_write.extend(shape.writable.iter().map(|(gpa, len)| *gpa..*gpa + u64::from(*len)));
                open.may_write.dedup();
            }
        }
        if self.blind {
            return vec![0..MEMORY];
        }
        let mut allowed: Vec<_> = self.open.iter().flat_map(|open| open.may_write.iter().cloned()).collect();
        allowed.push(self.ring.used_range());
        allowed
    }

    fn settle(&mut self) {
        self.guest.kick(0);
        let rest = (0..5000).any(|_| !self.round());
        assert!(rest, "the device never comes to rest");
    }

    fn take_used(&mut self) {
        while let Some((head, written)) = self.ring.take_used(&self.guest.world) {
            let position = self.open.iter().position(|open| u32::from(open.head) == head);
            let Some(position) = position else {
                // A hostile driver may let the device write over the used ring.
                assert!(self.hostile, "the chain {head} was completed, and is not in flight");
                return;
            };
            let open = self.open.remove(position);
            // Which of several chains of one head it was, nobody knows.
            if let Some(other) = self.open.iter_mut().find(|other| other.head == open.head) {
                other.may_write.extend(open.may_write.iter().cloned());
            }
            if let Some(request) = open.request
                && !self.hostile
            {
                self.check(&request, written);
            }
        }
        let needs_reset = self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET != 0;
        assert!(self.hostile || !needs_reset, "the device needs a reset after well-formed requests");
        if self.open.is_empty() && !self.hostile {
            self.check_disk();
        }
    }

    /// A request was answered as it should be.
    fn check(&mut self, request: &Request, written: u32) {
        let Request { shape, answer, data, .. } = request;
        let room = total(&shape.writable);
        let bytes: Vec<u8> = cut(&shape.writable, 0, room)
            .iter()
            .flat_map(|(gpa, len)| self.guest.world.mirror(*gpa, *len))
            .copied()
            .collect();
        let claimed = usize::try_from(written).expect("it is small");
        assert!(claimed <= bytes.len(), "{written} bytes were written, as the device says, of {}", bytes.len());
        assert!(
            bytes[..claimed].iter().all(|byte| *byte != PATTERN),
            "{written} bytes were written, as the device says"
        );
        let Some(found) = bytes.last().copied() else {
            return assert_eq!(written, 0, "without room for a status, nothing is written");
        };
        let failed =
            lock(&self.medium).failed && !(answer.reads.is_none() && answer.changes.is_empty() && !answer.flushes);
        if failed && found == 1 {
            return;
        }
        assert_eq!(found, answer.status, "the status of a request that should be answered by {answer:?}");
        if answer.status == 0 {
            assert_eq!(u64::from(written), answer.written, "bytes written");
            if let Some(data) = data {
                assert!(bytes[..data.len()] == data[..], "what was read is not what the disk holds");
            }
        }
    }

    /// What no request has changed is as it was.
    fn check_disk(&mut self) {
        let mut medium = lock(&self.medium);
        medium.failed = false;
        for range in self.uncertain.drain(..) {
            let range = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
            self.disk[range.clone()].copy_from_slice(&medium.bytes[range]);
        }
        assert!(medium.bytes == self.disk, "the disk changed where no request changes it");
    }

    fn reset(&mut self, input: &mut Input) {
        let allowed = self.allowed();
        self.guest.write(mmio::STATUS, 0);
        // What the backend does later, it may do to what the driver's next life has on the disk.
        assert_eq!(lock(&self.medium).pending(), 0, "operations are in flight after a reset");
        self.guest.world.adopt_changes(&allowed);
        self.guest.settle(&[]);
        self.open.clear();
        self.check_disk_after_reset();
        self.bring_up(input);
    }

    /// Requests that were given up may have been done or not.
    fn check_disk_after_reset(&mut self) {
        if self.hostile {
            self.uncertain.push(0..CAPACITY);
        }
        self.check_disk();
    }

    fn pause(&mut self) {
        let allowed = self.allowed();
        let paused = self.guest.call(|transport| transport.pause(std::time::Duration::ZERO)).is_ok();
        self.guest.world.adopt_changes(&allowed);
        self.paused = paused;
        assert!(!paused || lock(&self.medium).pending() == 0, "operations are in flight during a pause");
        if paused {
            self.take_used();
            self.guest.settle(&[]);
        }
    }

    fn resume(&mut self, input: &mut Input) {
        if self.paused && input.one_in(2) && self.guest.read(mmio::STATUS) & status::DEVICE_NEEDS_RESET == 0 {
            let (device, handle) = device(&self.medium, self.rules.read_only);
            self.guest.exchange(device);
            self.handle = handle;
        }
        self.guest.call(|transport| transport.resume());
        self.paused = false;
    }

    fn behave(&mut self, input: &mut Input) {
        let choice = input.byte();
        lock(&self.medium).behaviour = Behaviour {
            delay: input.byte() % 8,
            holds: choice & 1 != 0,
            backwards: choice & 2 != 0,
            fails: choice & 4 != 0,
            room: input.byte() % 16,
        };
        // What it held goes on by itself.
        self.guest.kick(0);
    }

    /// Limits of so little a second that, but for the burst, requests wait until there are others.
    fn limit(&mut self, input: &mut Input) {
        let mut rate = || (!input.one_in(3)).then(|| RateLimit::per_second(1).burst(1 << input.below(17)));
        let mut limits = Limits::new();
        (limits.operations, limits.bytes) = (rate(), rate());
        self.handle.set_limits(limits).expect("the limits are in range");
    }

    fn touch_config(&mut self, input: &mut Input) {
        let offset = mmio::CONFIG + u64::from(input.byte());
        let len = usize::from(input.below(9));
        let bytes = [input.byte(); 8];
        // The driver waits until the device was told, which has turns meanwhile.
        let allowed = self.allowed();
        self.guest.access(offset, &bytes[..len]);
        self.guest.world.adopt_changes(&allowed);
        if offset < mmio::CONFIG + 8 {
            let low = self.guest.read(mmio::CONFIG);
            assert_eq!(u64::from(low), CAPACITY / 512, "the capacity in the config space");
        }
    }

    /// Nothing is left.
    fn end(mut self) {
        self.guest.call(|transport| transport.resume());
        self.paused = false;
        lock(&self.medium).behaviour = Behaviour { room: 32, ..Behaviour::default() };
        self.handle.set_limits(Limits::new()).expect("the limits are in range");
        self.settle();
        if !self.hostile {
            assert!(self.open.is_empty(), "{} requests were never answered", self.open.len());
        }
        self.serves_again();
    }

    /// Whatever happened before, after a reset all is well.
    fn serves_again(&mut self) {
        self.reset(&mut Input::new(&[]));
        self.request(&mut Input::new(&[0, 0, 0, 8, 5, 5]));
        self.settle();
        assert!(self.open.is_empty(), "a request after a reset was never answered");
    }
}

/// Inputs that reach far.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let begin = |first: u8, flags: u8| Script::new().bytes(&[first, 0, 1, 1, flags, 3]);
    // Of one kind, at a sector, of some blocks, in as few parts as can be.
    let request =
        |script: Script, kind: u8, sector: u8, blocks: u8| script.bytes(&[0, kind, 0, sector, blocks, 5, 5, 0]);
    let all = |script: Script| (0..6u8).fold(script, |script, kind| request(script, kind, kind, 2).bytes(&[10]));
    vec![
        ("every-kind", all(begin(0, 0)).done()),
        ("read-only", all(begin(7, 0)).done()),
        ("write-through", all(begin(0, 3)).done()),
        ("late", all(begin(0, 0).bytes(&[14, 0, 5, 2])).done()),
        ("reset-while-held", request(begin(0, 0).bytes(&[14, 1, 0, 4]), 0, 0, 2).bytes(&[8, 1, 11, 0, 3]).done()),
        ("pause-and-exchange", request(begin(0, 0), 0, 0, 2).bytes(&[8, 1, 12, 13, 1, 10]).done()),
        // An operation at once, then a pause, and another device without limits.
        ("limited", all(begin(0, 0).bytes(&[15, 0, 0, 0, 2])).bytes(&[12, 13, 1, 10]).done()),
        ("limited-reset", all(begin(0, 0).bytes(&[15, 0, 2, 0, 9])).bytes(&[11, 0, 3, 10]).done()),
        ("fails", request(begin(0, 0).bytes(&[14, 4, 0, 4]), 0, 0, 2).bytes(&[10]).done()),
    ]
}
