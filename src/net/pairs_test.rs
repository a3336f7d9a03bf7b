//! Cards with several pairs of queues, and the control queue, on a pair of sockets for each.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::tests::SocketBackend;
use super::*;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::net::{Delivery, VnetHeader};
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, patterned_memory};
use crate::virtio::spec::feature::{RING_EVENT_IDX, VERSION_1};
use crate::virtio::spec::status::DEVICE_NEEDS_RESET;
use crate::virtio::{MmioTransport, TransportState};

pub(super) const CONTROL: u64 = 1 << feature::CTRL_VQ;
pub(super) const ONE: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << feature::MRG_RXBUF | CONTROL;
pub(super) const SEVERAL: u64 = ONE | 1 << feature::MQ;
pub(super) const COMMAND: u64 = 0xf000;
const ROOM: u32 = 2048;
const FRAME: usize = 72;

pub(super) fn sent_from(queue: usize) -> u64 {
    0x10_0000 + queue as u64 * 0x1_0000
}

pub(super) fn received_at(pair: usize, head: u32) -> u64 {
    0x80_0000 + pair as u64 * 0x10_0000 + u64::from(head) * u64::from(ROOM)
}

pub(super) struct Rig {
    pub(super) driver: MmioDriver,
    pub(super) queues: Vec<DriverQueue>,
    pub(super) wires: Vec<UnixDatagram>,
    pub(super) memory: GuestMemory,
    count: usize,
    pub(super) control: usize,
    /// Buffers of each pair.
    room: u16,
}

fn card(count: usize) -> (Box<dyn VirtioDevice>, Vec<UnixDatagram>) {
    let (mut backends, mut wires) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (backend, wire, _) = SocketBackend::new();
        backends.push(Box::new(backend) as Box<dyn NicBackend>);
        wire.set_nonblocking(true).unwrap();
        wires.push(wire);
    }
    (Box::new(Net::new(backends, [2, 0, 0, 0, 0, 1], None, NicHandle::new()).unwrap()), wires)
}

fn lay_out(memory: &GuestMemory, count: usize) -> Vec<DriverQueue> {
    (0..count).map(|index| DriverQueue::new(memory, GuestAddress(0x1_0000 + index as u64 * 0x1000), 64)).collect()
}

/// A card that runs, with buffers in all its queues.
pub(super) fn rig(count: usize, features: u64) -> Rig {
    let (device, wires) = card(count);
    rig_on(device, wires, count, features, 32)
}

fn rig_on(device: Box<dyn VirtioDevice>, wires: Vec<UnixDatagram>, count: usize, features: u64, room: u16) -> Rig {
    let memory = patterned_memory(32 << 20);
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("test-io").unwrap()).unwrap();
    let control = if features & 1 << feature::MQ != 0 { 2 * count } else { 2 };
    let (driver, queues) = (MmioDriver::new(transport), Vec::new());
    let mut rig = Rig { driver, queues, wires, memory, count, control, room };
    rig.bring_up(features);
    rig
}

impl Rig {
    pub(super) fn bring_up(&mut self, features: u64) {
        self.driver.write(0x70, 0);
        self.queues = lay_out(&self.memory, self.control + 1);
        self.driver.bring_up(features, &self.queues.iter().collect::<Vec<_>>());
        for pair in 0..self.control / 2 {
            (0..self.room).for_each(|_| self.give_room(pair));
            self.driver.kick(2 * pair as u32);
        }
    }

    fn give_room(&mut self, pair: usize) {
        let queue = &mut self.queues[2 * pair];
        let descriptor = u32::from(queue.avail_index() % queue.size());
        queue.offer(&[Buffer::writable(received_at(pair, descriptor), ROOM)]);
    }

    /// Sends a command; returns its answer.
    pub(super) fn command(&mut self, bytes: &[u8]) -> u8 {
        self.memory.write(GuestAddress(COMMAND), bytes).unwrap();
        let queue = &mut self.queues[self.control];
        queue.offer(&[Buffer::readable(COMMAND, bytes.len() as u32), Buffer::writable(COMMAND + 64, 1)]);
        self.driver.kick(self.control as u32);
        assert_eq!(self.driver.wait_used(queue).1, 1);
        let mut answer = [0xee];
        self.memory.read(GuestAddress(COMMAND + 64), &mut answer).unwrap();
        answer[0]
    }

    pub(super) fn set_pairs(&mut self, count: u16) -> u8 {
        let [low, high] = count.to_le_bytes();
        self.command(&[4, 0, low, high])
    }

    /// Brings a frame on a wire, and says on which pair it arrives.
    fn bring(&mut self, wire: usize, byte: u8) -> usize {
        self.wires[wire].send(&[[0; 12].as_slice(), &[byte; FRAME - 12]].concat()).unwrap();
        let mut found = None;
        let Self { driver, queues, memory, control, .. } = self;
        driver.wait_until("the frame", || {
            found = (0..*control / 2).find_map(|pair| queues[2 * pair].take_used().map(|used| (pair, used)));
            found.is_some()
        });
        let (pair, (head, len)) = found.unwrap();
        let mut bytes = [0; FRAME];
        memory.read(GuestAddress(received_at(pair, head)), &mut bytes).unwrap();
        assert_eq!((len as usize, bytes[12]), (FRAME, byte));
        self.give_room(pair);
        self.driver.kick(2 * pair as u32);
        pair
    }

    /// Sends a frame on a pair, which must come out on one wire alone.
    pub(super) fn send(&mut self, pair: usize, byte: u8) -> usize {
        let queue = 2 * pair + 1;
        self.memory.write(GuestAddress(sent_from(queue)), &[byte; FRAME]).unwrap();
        self.memory.write(GuestAddress(sent_from(queue)), &[0; 12]).unwrap();
        self.queues[queue].offer(&[Buffer::readable(sent_from(queue), FRAME as u32)]);
        self.driver.kick(queue as u32);
        self.driver.wait_used(&mut self.queues[queue]);
        let mut bytes = [0; 200];
        let took = |wire: &UnixDatagram| wire.recv(&mut bytes).is_ok_and(|len| len == FRAME);
        let wires: Vec<_> = self.wires.iter().map(took).collect();
        assert_eq!(bytes[12], byte);
        assert_eq!(wires.iter().filter(|took| **took).count(), 1, "{wires:?}");
        wires.iter().position(|took| *took).unwrap()
    }

    /// On which pair the frames of each wire arrive.
    pub(super) fn arrivals(&mut self) -> Vec<usize> {
        (0..self.count).map(|wire| self.bring(wire, wire as u8 + 1)).collect()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.driver.status() & DEVICE_NEEDS_RESET != 0
    }

    /// Exchanges the device for one that goes on from its state, after `change`.
    fn exchange(&mut self, change: impl FnOnce(&mut TransportState)) {
        self.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
        let mut state = self.driver.transport().save().unwrap();
        change(&mut state);
        let (device, wires) = card(self.count);
        let io_thread = IoThread::new("test-io").unwrap();
        let transport = MmioTransport::restore(device, self.memory.clone(), &io_thread, &state).unwrap();
        (self.driver, self.wires) = (MmioDriver::new(transport), wires);
        self.driver.transport().resume();
    }
}

#[test]
fn the_driver_is_told_how_many_pairs_there_are() {
    for count in [1, 2, 16] {
        let rig = rig(count, ONE);
        assert_eq!(rig.driver.read(0x108) & 0xffff, count as u32);
        assert_eq!(rig.driver.offered() & 1 << feature::MQ != 0, count > 1);
    }
    let rig = rig(2, ONE);
    assert!(!rig.driver.negotiate(SEVERAL & !CONTROL), "several pairs without a control queue");
    assert!(rig.driver.negotiate(SEVERAL));
}

#[test]
fn each_pair_has_a_wire_of_its_own_once_the_driver_asks_for_it() {
    let mut rig = rig(4, SEVERAL);
    assert_eq!(rig.arrivals(), [0; 4], "one pair gets frames at first");
    assert_eq!(rig.set_pairs(4), 0);
    assert_eq!(rig.arrivals(), [0, 1, 2, 3]);
    assert_eq!((0..4).map(|pair| rig.send(pair, 9)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    rig.bring_up(SEVERAL);
    assert_eq!(rig.arrivals(), [0; 4], "a reset leaves one pair");
}

#[test]
fn pairs_that_get_no_frames_any_more_lose_none_and_still_send() {
    let mut rig = rig(4, SEVERAL);
    for count in [4, 2, 3, 1, 4, 1, 2, 4] {
        assert_eq!(rig.set_pairs(count), 0);
        let expected: Vec<_> = (0..4).map(|wire| wire % usize::from(count)).collect();
        assert_eq!(rig.arrivals(), expected, "{count} pairs");
        assert_eq!((0..4).map(|pair| rig.send(pair, 9)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
    rig.set_pairs(4);
    // The buffers of all pairs that the device has taken are put back.
    rig.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
    let progress = rig.driver.transport().save().unwrap().queues.into_iter().map(|queue| queue.progress);
    assert!(progress.into_iter().all(|progress| progress.next_avail == progress.next_used));
}

#[test]
fn numbers_of_pairs_that_there_are_not_are_refused_and_change_nothing() {
    let mut rig = rig(3, SEVERAL);
    assert_eq!(rig.set_pairs(2), 0);
    for count in [0, 4, 16, 0x8000, u16::MAX] {
        assert_eq!(rig.set_pairs(count), 1, "{count}");
    }
    for unknown in [&[][..], &[4], &[4, 0], &[4, 0, 3], &[4, 0, 3, 0, 0], &[4, 1, 3, 0], &[4, 2, 3, 0], &[1, 0, 1]] {
        let answered = if unknown.is_empty() { 1 } else { rig.command(unknown) };
        assert_eq!(answered, 1, "{unknown:?}");
    }
    // Where there is no place for the answer.
    rig.memory.write(GuestAddress(COMMAND), &[4, 0, 3, 0]).unwrap();
    rig.queues[6].offer(&[Buffer::readable(COMMAND, 4)]);
    rig.driver.kick(6);
    assert_eq!(rig.driver.wait_used(&mut rig.queues[6]).1, 0);
    assert_eq!(rig.arrivals(), [0, 1, 0]);
}

#[test]
fn a_pair_that_is_not_set_up_cannot_be_asked_for() {
    let mut rig = rig(3, SEVERAL);
    rig.driver.write(0x70, 0);
    rig.queues = lay_out(&rig.memory, 7);
    assert!(rig.driver.negotiate(SEVERAL));
    for index in [0, 1, 2, 3, 4, 6] {
        assert!(rig.driver.set_queue(index as u32, &rig.queues[index]));
    }
    rig.driver.write(0x70, rig.driver.status() | 4);
    assert_eq!([3, 2, 1].map(|count| rig.set_pairs(count)), [1, 0, 0]);
}

#[test]
fn a_driver_of_one_pair_finds_the_control_queue_behind_it_and_gets_the_frames_of_all() {
    let mut rig = rig(4, ONE);
    assert_eq!(rig.control, 2);
    assert_eq!(rig.arrivals(), [0; 4]);
    assert_eq!([1, 2].map(|count| rig.set_pairs(count)), [1, 1], "it has not agreed to several");
    assert_eq!(rig.command(&[3, 0]), 0);
    assert_eq!(rig.arrivals(), [0; 4]);
}

#[test]
fn a_device_that_is_saved_at_any_step_goes_on_with_as_many_pairs() {
    let mut rig = rig(3, SEVERAL);
    rig.exchange(|_| {});
    assert_eq!(rig.arrivals(), [0; 3]);
    for (count, expected) in [(2, [0, 1, 0]), (3, [0, 1, 2]), (1, [0; 3]), (3, [0, 1, 2])] {
        assert_eq!(rig.set_pairs(count), 0);
        rig.exchange(|state| {
            let device = state.device.as_ref().unwrap();
            assert_eq!((device.version, &device.bytes[..]), (2, &[0, count as u8, 0][..]));
        });
        assert_eq!(rig.arrivals(), expected);
        rig.exchange(|_| {});
        assert_eq!((0..3).map(|pair| rig.send(pair, 9)).collect::<Vec<_>>(), [0, 1, 2]);
    }
}

#[test]
fn a_command_that_waits_while_the_device_is_exchanged_is_obeyed_by_the_next() {
    let mut rig = rig(2, SEVERAL);
    rig.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
    rig.memory.write(GuestAddress(COMMAND), &[4, 0, 2, 0]).unwrap();
    rig.queues[4].offer(&[Buffer::readable(COMMAND, 4), Buffer::writable(COMMAND + 64, 1)]);
    rig.driver.kick(4);
    rig.exchange(|_| {});
    assert_eq!(rig.driver.wait_used(&mut rig.queues[4]).1, 1);
    assert_eq!(rig.arrivals(), [0, 1]);
}

#[test]
fn states_of_this_form_and_the_one_before_are_read_and_others_refused() {
    let with = |version, bytes: &[u8]| {
        let mut rig = rig(2, SEVERAL);
        rig.exchange(|state| state.device = Some(DeviceState::new(version, bytes)));
        rig
    };
    assert_eq!(with(1, &[0]).arrivals(), [0, 0]);
    assert_eq!(with(2, &[0, 2, 0]).arrivals(), [0, 1]);
    let bad: [(u32, &[u8]); 8] = [
        (1, &[2]),
        (1, &[0, 1, 0]),
        (2, &[0]),
        (2, &[2, 1, 0]),
        (2, &[0, 0, 0]),
        (2, &[0, 3, 0]),
        (2, &[0, 1, 1]),
        (3, &[0, 1, 0]),
    ];
    for (version, bytes) in bad {
        let rig = with(version, bytes);
        rig.driver.wait_until("the refusal", || rig.has_failed());
    }
}

/// Has a frame whenever it is asked, or a flood of frames that fit into no buffer and use up each turn.
struct Source {
    byte: u8,
    floods: bool,
}

impl NicBackend for Source {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        let header = VnetHeader::default();
        if self.floods {
            while frames.put(io, &header, &[0; 60_000]) == Delivery::Dropped {}
        } else {
            frames.put(io, &header, &[self.byte; FRAME - 12]);
        }
    }

    fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}

    fn wants(&self, _need: Need, wants: &mut Wants) {
        wants.again();
    }
}

#[test]
fn a_flood_on_one_backend_leaves_turns_to_the_others_on_whatever_pairs() {
    for pairs in 1..=3 {
        let source = |byte| Box::new(Source { byte, floods: byte == 1 }) as Box<dyn NicBackend>;
        let device = Net::new([1, 2, 3].map(source).into(), [2, 0, 0, 0, 0, 1], None, NicHandle::new()).unwrap();
        let mut rig = rig_on(Box::new(device), Vec::new(), 3, SEVERAL, 4);
        assert_eq!(rig.set_pairs(pairs), 0);
        let mut seen = [0; 4];
        let Rig { driver, queues, memory, .. } = &mut rig;
        driver.wait_until("frames of all that do not flood", || {
            for (pair, queue) in queues.iter_mut().step_by(2).take(3).enumerate() {
                while let Some((head, _)) = queue.take_used() {
                    let mut byte = [0];
                    memory.read(GuestAddress(received_at(pair, head) + 12), &mut byte).unwrap();
                    seen[usize::from(byte[0])] += 1;
                    let descriptor = u32::from(queue.avail_index() % queue.size());
                    queue.offer(&[Buffer::writable(received_at(pair, descriptor), ROOM)]);
                    driver.kick(2 * pair as u32);
                }
            }
            seen[2] > 50 && seen[3] > 50
        });
    }
}

#[test]
fn a_guest_that_sends_without_end_on_one_pair_leaves_turns_to_the_others() {
    let mut rig = rig(2, SEVERAL);
    let stop = AtomicBool::new(false);
    let (mut first, wires) = (rig.queues.remove(1), rig.wires.iter().map(|wire| wire.try_clone().unwrap()));
    let wires: Vec<_> = wires.collect();
    rig.memory.write(GuestAddress(sent_from(1)), &[0; 60_000]).unwrap();
    let kick = || rig.driver.kick(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // What the wire takes is taken off it at once.
            while !stop.load(Relaxed) {
                let _ = wires[0].recv(&mut [0; 64]);
            }
        });
        let second = &mut rig.queues[2];
        for _ in 0..64 {
            first.offer(&[Buffer::readable(sent_from(1), 60_000)]);
        }
        for _ in 0..100 {
            while first.take_used().is_some() {
                first.offer(&[Buffer::readable(sent_from(1), 60_000)]);
            }
            kick();
            rig.memory.write(GuestAddress(sent_from(3)), &[0; FRAME]).unwrap();
            second.offer(&[Buffer::readable(sent_from(3), FRAME as u32)]);
            rig.driver.kick(3);
            rig.driver.wait_used(second);
            assert_eq!(wires[1].recv(&mut [0; 200]).unwrap(), FRAME);
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn commands_without_end_leave_turns_to_frames() {
    let mut rig = rig(16, SEVERAL);
    for (index, count) in [16u8, 1].into_iter().enumerate() {
        rig.memory.write(GuestAddress(COMMAND + 4 * index as u64), &[4, 0, count, 0]).unwrap();
    }
    let mut number = 0;
    for _ in 0..100 {
        let control = &mut rig.queues[32];
        while number < 32 || control.take_used().is_some() {
            let command = Buffer::readable(COMMAND + 4 * (number % 2), 4);
            control.offer(&[command, Buffer::writable(COMMAND + 64, 1)]);
            number += 1;
        }
        rig.driver.kick(32);
        assert_eq!(rig.send(0, 9), 0);
    }
    assert!(number > 100, "{number} commands were answered");
}

#[test]
fn the_link_is_up_if_all_backends_say_so_and_what_all_offer_is_offered() {
    struct Half(NicInfo);
    impl NicBackend for Half {
        fn info(&self) -> NicInfo {
            self.0
        }
        fn receive(&mut self, _io: &mut Io, _frames: &mut RxBatch) {}
        fn send(&mut self, _io: &mut Io, _frames: &mut TxBatch) {}
    }
    let offered = |infos: [NicInfo; 2]| {
        let backends = infos.map(|info| Box::new(Half(info)) as Box<dyn NicBackend>).into();
        let mut net = Net::new(backends, [2, 0, 0, 0, 0, 1], None, NicHandle::new()).unwrap();
        (net.config()[6] & 1 == 1, net.info().features & Offloads::ALL.features())
    };
    let info = |link_up, offloads| NicInfo { link_up, offloads };
    let checksum = Offloads { checksum: true, ..Offloads::NONE };
    let all = Offloads::ALL;
    assert_eq!(offered([info(true, all), info(true, all)]), (true, all.features()));
    assert_eq!(offered([info(true, checksum), info(false, all)]), (false, checksum.features()));
    assert_eq!(offered([info(false, all), info(true, Offloads::NONE)]), (false, 0));
}

#[test]
fn a_card_with_several_pairs_passes_the_suite_for_all_devices() {
    let wires: Arc<Mutex<Vec<UnixDatagram>>> = Arc::default();
    let made = Arc::clone(&wires);
    let make = move || {
        let (device, wires) = card(2);
        *made.lock().unwrap() = wires;
        device
    };
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        for (pair, wire) in wires.lock().unwrap().iter().enumerate() {
            // What earlier abuse sent is not what is waited for.
            while wire.recv(&mut [0; 16]).is_ok() {}
            let head = queues[2 * pair].offer(&[Buffer::writable(0x4_0000, 2048)]);
            driver.kick(2 * pair as u32);
            wire.send(&[7; 100]).unwrap();
            assert_eq!(driver.wait_used(&mut queues[2 * pair]), (head.into(), 100));
            queues[2 * pair + 1].memory().write(GuestAddress(0x2_0000), &[0; 80]).unwrap();
            let head = queues[2 * pair + 1].offer(&[Buffer::readable(0x2_0000, 72)]);
            driver.kick(2 * pair as u32 + 1);
            assert_eq!(driver.wait_used(&mut queues[2 * pair + 1]), (head.into(), 0));
            assert_eq!(wire.recv(&mut [0; 200]).unwrap(), 72);
        }
    };
    let use_both = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        queues[4].memory().write(GuestAddress(0x3_0000), &[4, 0, 2, 0]).unwrap();
        queues[4].offer(&[Buffer::readable(0x3_0000, 4), Buffer::writable(0x3_0010, 1)]);
        driver.kick(4);
        assert_eq!(driver.wait_used(&mut queues[4]).1, 1);
    };
    let features = 1 << feature::MRG_RXBUF | CONTROL | 1 << feature::MQ;
    Conformance::new(make, serves, features).prepare(use_both).run();
}
