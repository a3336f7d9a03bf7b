//! The device through its registers and real queues, on a pair of sockets that keep packets apart as a TAP device does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use super::*;
use crate::memory::GuestAddress;
use crate::net::header::{ETHERNET_LEN, MAX_FRAME};
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, is_untouched, patterned_memory};
use crate::virtio::spec::feature::{RING_EVENT_IDX, VERSION_1};
use crate::virtio::{IoThread, MmioTransport};

const MODERN: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX;
const MERGE: u64 = MODERN | 1 << feature::MRG_RXBUF;
const ALL: u64 = MERGE | OFFLOAD_FEATURES;
const TX: u64 = 0x20000;
const RX: u64 = 0x40000;

struct SocketBackend {
    socket: Arc<OwnedFd>,
    offers: Arc<Mutex<Offers>>,
}

impl Backend for SocketBackend {
    fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    fn set_offloads(&mut self, offers: Offers) -> Result<()> {
        *self.offers.lock().unwrap() = offers;
        Ok(())
    }

    fn receive(&mut self, buffers: &IoRanges) -> io::Result<usize> {
        buffers.fill_once(self.socket.as_fd())
    }

    fn send(&mut self, header: &Header, frame: &IoRanges) -> io::Result<()> {
        frame.drain_once(self.socket.as_fd(), &header.bytes()).map(drop)
    }
}

struct Rig {
    driver: MmioDriver,
    rx: DriverQueue,
    tx: DriverQueue,
    wire: UnixDatagram,
    memory: GuestMemory,
    offers: Arc<Mutex<Offers>>,
}

fn rig(features: u64) -> Rig {
    let memory = patterned_memory(4 << 20);
    let (wire, socket) = UnixDatagram::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    wire.set_read_timeout(Some(MmioDriver::PATIENCE)).unwrap();
    let offers = Arc::default();
    let backend = SocketBackend { socket: Arc::new(socket.into()), offers: Arc::clone(&offers) };
    let device = Box::new(Net::new(Box::new(backend), [2, 0, 0, 0, 0, 1], Some(1500)));
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("test-io").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let rx = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
    let tx = DriverQueue::new(&memory, GuestAddress(0x4000), 64);
    driver.bring_up(features, &[&rx, &tx]);
    Rig { driver, rx, tx, wire, memory, offers }
}

impl Rig {
    fn transmit(&mut self, header: [u8; 12], frame: &[u8]) {
        self.memory.write(GuestAddress(TX), &header).unwrap();
        self.memory.write(GuestAddress(TX + 12), frame).unwrap();
        let head = self.tx.offer(&[Buffer::readable(TX, 12), Buffer::readable(TX + 12, frame.len() as u32)]);
        self.driver.kick(1);
        assert_eq!(self.driver.wait_used(&mut self.tx), (head.into(), 0));
    }

    fn on_the_wire(&self) -> Vec<u8> {
        let mut bytes = vec![0; 70000];
        let len = self.wire.recv(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(GuestAddress(gpa), &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn a_frame_goes_out_with_its_header() {
    let mut rig = rig(ALL);
    rig.transmit([0; 12], &[9; 60]);
    let packet = rig.on_the_wire();
    assert_eq!((&packet[..12], &packet[12..]), (&[0; 12][..], &[9; 60][..]));
}

#[test]
fn a_frame_comes_in_with_the_number_of_its_buffers() {
    let mut rig = rig(ALL);
    let head = rig.rx.offer(&[Buffer::writable(RX, 2048)]);
    rig.driver.kick(0);
    let packet = [[0u8; 12].as_slice(), &[5; 60]].concat();
    rig.wire.send(&packet).unwrap();
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (head.into(), 72));
    let mut expected = packet;
    expected[10] = 1;
    assert_eq!(rig.bytes(RX, 72), expected);
    assert!(is_untouched(&rig.memory, RX + 72, 2048));
}

#[test]
fn a_large_frame_is_spread_over_buffers_that_appear_together() {
    let mut rig = rig(ALL);
    let heads: Vec<_> = (0..60).map(|i| rig.rx.offer(&[Buffer::writable(RX + i * 2048, 1536)])).collect();
    rig.driver.kick(0);
    let packet = [[0u8; 12].as_slice(), &[5; 4000]].concat();
    rig.wire.send(&packet).unwrap();
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (heads[0].into(), 1536));
    assert_eq!(rig.rx.take_used(), Some((heads[1].into(), 1536)));
    assert_eq!(rig.rx.take_used(), Some((heads[2].into(), 4012 - 2 * 1536)));
    assert_eq!(rig.rx.take_used(), None);
    assert_eq!(rig.bytes(RX, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert!(is_untouched(&rig.memory, RX + 2 * 2048 + 4012 - 2 * 1536, 100));
}

#[test]
fn frames_wait_for_buffers_and_come_when_there_are_some() {
    let mut rig = rig(MERGE);
    for number in 0..5 {
        let packet = [[0u8; 12].as_slice(), &[number; 60]].concat();
        rig.wire.send(&packet).unwrap();
    }
    for number in 0..5 {
        rig.rx.offer(&[Buffer::writable(RX, 2048)]);
        rig.driver.kick(0);
        assert_eq!(rig.driver.wait_used(&mut rig.rx).1, 72);
        assert_eq!(rig.bytes(RX + 12, 60), [number; 60]);
    }
}

#[test]
fn without_merging_each_frame_has_one_chain() {
    let mut rig = rig(MODERN);
    // Neither of the first two is a buffer that a frame can go to.
    let short = rig.rx.offer(&[Buffer::writable(RX, 20)]);
    let readable = rig.rx.offer(&[Buffer::readable(RX, 2048)]);
    let good = rig.rx.offer(&[Buffer::writable(RX, 5), Buffer::writable(RX + 5, 2000)]);
    rig.driver.kick(0);
    rig.wire.send(&[[0u8; 12].as_slice(), &[5; 60]].concat()).unwrap();
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (short.into(), 0));
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (readable.into(), 0));
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (good.into(), 72));
    assert_eq!(rig.bytes(RX + 10, 3), [1, 0, 5]);
}

#[test]
fn offloads_are_what_the_guest_copes_with() {
    let rig = rig(MERGE | 1 << feature::GUEST_CSUM | 1 << feature::GUEST_TSO4 | 1 << feature::CSUM);
    let expected = Offers { checksum: true, tso4: true, tso6: false, ecn: false };
    assert_eq!(*rig.offers.lock().unwrap(), expected);
}

#[test]
fn the_largest_frame_goes_both_ways_and_one_that_is_cut_is_dropped() {
    let mut rig = rig(ALL);
    let frame = vec![6; MAX_FRAME as usize];
    rig.transmit([0; 12], &frame);
    let packet = rig.on_the_wire();
    assert_eq!(packet[12..], frame);
    // Too few buffers for it: it is lost, and they are there for the next.
    rig.rx.offer(&[Buffer::writable(RX, 32768)]);
    rig.driver.kick(0);
    rig.wire.send(&packet).unwrap();
    rig.wire.send(&packet[..100]).unwrap();
    assert_eq!(rig.driver.wait_used(&mut rig.rx), (0, 100));
    for index in 0..3 {
        rig.rx.offer(&[Buffer::writable(RX + index * 32768, 32768)]);
    }
    rig.driver.kick(0);
    rig.wire.send(&packet).unwrap();
    let lens: Vec<_> = (0..3).map(|_| rig.driver.wait_used(&mut rig.rx).1).collect();
    assert_eq!(lens, [32768, 32768, packet.len() as u32 - 65536]);
    assert_eq!(rig.bytes(RX + 12, frame.len()), frame);
}

#[test]
fn features_without_what_they_need_are_refused() {
    let rig = rig(MERGE);
    for (lonely, needed) in [
        (feature::GUEST_TSO4, feature::GUEST_CSUM),
        (feature::GUEST_TSO6, feature::GUEST_CSUM),
        (feature::HOST_TSO4, feature::CSUM),
        (feature::HOST_TSO6, feature::CSUM),
    ] {
        assert!(!rig.driver.negotiate(MERGE | 1 << lonely));
        assert!(rig.driver.negotiate(MERGE | 1 << lonely | 1 << needed));
    }
    assert!(!rig.driver.negotiate(MERGE | 1 << feature::GUEST_CSUM | 1 << feature::GUEST_ECN));
    assert!(!rig.driver.negotiate(MERGE | 1 << feature::CSUM | 1 << feature::HOST_ECN));
}

#[test]
fn bad_frames_are_dropped_and_the_next_goes_out() {
    let mut rig = rig(MERGE | 1 << feature::CSUM | 1 << feature::HOST_TSO4);
    let header = |flags, gso, size: u8, start: u8, offset: u8| [flags, gso, 0, 0, size, 0, start, 0, offset, 0, 0, 0];
    let bad = [
        // A checksum beyond the frame.
        header(1, 0, 0, 59, 0),
        header(1, 0, 0, 200, 200),
        // Segments that were not negotiated, are unknown, have no size, or need a checksum.
        header(1, 4, 100, 14, 16),
        header(1, 3, 100, 14, 16),
        header(1, 0x81, 100, 14, 16),
        header(1, 0x80, 100, 14, 16),
        header(1, 7, 100, 14, 16),
        header(1, 1, 0, 14, 16),
        header(0, 1, 100, 14, 16),
    ];
    for header in bad {
        rig.transmit(header, &[1; 60]);
    }
    // Too short for a frame, and too long.
    rig.transmit([0; 12], &[2; ETHERNET_LEN as usize - 1]);
    rig.transmit([0; 12], &vec![3; MAX_FRAME as usize + 1]);
    // Only a header, and less than that.
    for len in [12, 11, 1] {
        let head = rig.tx.offer(&[Buffer::readable(TX, len)]);
        rig.driver.kick(1);
        assert_eq!(rig.driver.wait_used(&mut rig.tx), (head.into(), 0));
    }
    let good = header(1, 1, 100, 14, 16);
    rig.transmit(good, &[4; 60]);
    assert_eq!(rig.on_the_wire(), [good.as_slice(), &[4; 60]].concat());
}

#[test]
fn a_full_wire_is_waited_for() {
    let mut rig = rig(MERGE);
    rig.memory.write(GuestAddress(TX), &[0; 12]).unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        for _ in 0..32 {
            rig.tx.offer(&[Buffer::readable(TX, 12), Buffer::readable(TX + 12, 60)]);
            sent += 1;
        }
        rig.driver.kick(1);
        let mut done = 0;
        let mut seen = 0;
        rig.driver.wait_until("the frames", || {
            while seen < done + 8 && seen < 32 && rig.wire.recv(&mut [0; 100]).is_ok() {
                seen += 1;
            }
            while rig.tx.take_used().is_some() {
                done += 1;
            }
            done == 32 && seen == 32
        });
    }
    assert_eq!(sent, 320);
}

#[test]
fn it_stands_what_every_device_must() {
    let wires: Arc<Mutex<Option<UnixDatagram>>> = Arc::default();
    let make = || {
        let (wire, socket) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        *wires.lock().unwrap() = Some(wire);
        let backend = SocketBackend { socket: Arc::new(socket.into()), offers: Arc::default() };
        Box::new(Net::new(Box::new(backend), [2, 0, 0, 0, 0, 1], None)) as Box<dyn VirtioDevice>
    };
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        let wires = wires.lock().unwrap();
        let wire = wires.as_ref().unwrap();
        // What earlier abuse sent is not what is waited for.
        wire.set_nonblocking(true).unwrap();
        while wire.recv(&mut [0; 16]).is_ok() {}
        let head = queues[0].offer(&[Buffer::writable(RX, 2048)]);
        driver.kick(0);
        wire.send(&[7; 100]).unwrap();
        assert_eq!(driver.wait_used(&mut queues[0]), (head.into(), 100));
        queues[1].memory().write(GuestAddress(TX), &[0; 80]).unwrap();
        let head = queues[1].offer(&[Buffer::readable(TX, 72)]);
        driver.kick(1);
        assert_eq!(driver.wait_used(&mut queues[1]), (head.into(), 0));
        assert_eq!(wire.recv(&mut [0; 200]).unwrap(), 72);
    };
    Conformance::new(make, serves, 1 << feature::MRG_RXBUF).run();
}
