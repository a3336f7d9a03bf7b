//! What devices count is what their drivers did.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use vmcell::block::{DiskBackend, DiskInfo, DiskMetrics, Done, FileBackend, Operation, Tag};
use vmcell::event::{Io, Wants};
use vmcell::meter::{Counter, Meter};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, RxBatch, TxBatch, VnetHeader};
use vmcell::testing::{Buffer, DriverQueue, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::{Activation, DeviceInfo, MmioTransport, Queues, TransportMetrics, VirtioDevice};
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread, Nic};

struct Rig {
    memory: GuestMemory,
    driver: MmioDriver,
    queues: Vec<DriverQueue>,
}

fn rig(device: Box<dyn VirtioDevice>, queues: u64) -> Rig {
    let memory = patterned_memory(4 << 20);
    let io_thread = IoThread::new("metrics").unwrap();
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread).unwrap());
    let queue = |index| DriverQueue::new(&memory, GuestAddress(0x1_0000 + index * 0x4000), 64);
    let queues: Vec<_> = (0..queues).map(queue).collect();
    driver.bring_up(driver.offered(), &queues.iter().collect::<Vec<_>>());
    Rig { memory, driver, queues }
}

impl Rig {
    /// Sends a request to a disk, and waits for it.
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.memory.write(GuestAddress(0x8000), &header).unwrap();
        let chain = [&[Buffer::readable(0x8000, 16)], data, &[Buffer::writable(0x9000, 1)]].concat();
        self.queues[0].offer(&chain);
        self.driver.kick(0);
        self.driver.wait_used(&mut self.queues[0]);
    }

    fn transport(&self) -> TransportMetrics {
        self.driver.transport().metrics()
    }
}

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

#[test]
fn a_disk_counts_requests_by_kind_with_their_bytes_errors_and_refusals() {
    let disk = Disk::from_file(memory_disk(1 << 20)).unwrap();
    let handle = disk.handle();
    let mut rig = rig(disk.into_device().unwrap(), 1);
    (0..3).for_each(|_| rig.request(IN, 0, &[Buffer::writable(0x10_0000, 4096)]));
    rig.request(IN, 2047, &[Buffer::writable(0x10_0000, 1024)]); // behind the end
    (0..2).for_each(|_| rig.request(OUT, 8, &[Buffer::readable(0x10_0000, 512)]));
    rig.request(FLUSH, 0, &[]);
    rig.request(GET_ID, 0, &[Buffer::writable(0x10_0000, 20)]);
    let range = [&16u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat();
    rig.memory.write(GuestAddress(0xa000), &range).unwrap();
    rig.request(DISCARD, 0, &[Buffer::readable(0xa000, 16)]);
    rig.request(WRITE_ZEROES, 0, &[Buffer::readable(0xa000, 16)]);
    rig.request(99, 0, &[]);
    let mut wanted = DiskMetrics::default();
    (wanted.engine, wanted.fallback) = (handle.status().engine, handle.status().fallback);
    (wanted.reads, wanted.writes, wanted.flushes, wanted.identifications) = (3, 2, 1, 1);
    (wanted.discards, wanted.zeroes, wanted.refused) = (1, 1, 2);
    (wanted.read_bytes, wanted.written_bytes) = (3 * 4096, 1024);
    (wanted.discarded_bytes, wanted.zeroed_bytes) = (4096, 4096);
    assert_eq!(handle.metrics(), wanted);
    assert_eq!((rig.transport().chains, rig.transport().refused_chains), (11, 0));
    assert!((1..=11).contains(&rig.transport().interrupts), "{:?}", rig.transport());
}

#[test]
fn chains_that_break_the_rules_are_counted_and_a_reset_forgets_nothing() {
    let mut rig = rig(Disk::from_file(memory_disk(4096)).unwrap().into_device().unwrap(), 1);
    rig.request(FLUSH, 0, &[]);
    for _ in 0..2 {
        rig.queues[0].offer(&[Buffer::writable(0x9000, 1), Buffer::readable(0x8000, 16)]); // in the wrong order
        rig.driver.kick(0);
        rig.driver.wait_used(&mut rig.queues[0]);
    }
    let before = rig.transport();
    assert_eq!((before.chains, before.refused_chains), (3, 2));
    rig.driver.write(vmcell::virtio::spec::mmio::STATUS, 0);
    rig.queues = vec![DriverQueue::new(&rig.memory, GuestAddress(0x1_0000), 64)];
    rig.driver.bring_up(rig.driver.offered(), &[&rig.queues[0]]);
    rig.request(FLUSH, 0, &[]);
    assert_eq!((rig.transport().chains, rig.transport().refused_chains), (4, 2));
}

#[test]
fn each_doorbell_that_finds_the_thread_asleep_is_counted_and_each_interrupt() {
    let mut rig = rig(Disk::from_file(memory_disk(4096)).unwrap().into_device().unwrap(), 1);
    // Without EVENT_IDX, by which a driver would say which interrupts it wants.
    rig.driver.write(vmcell::virtio::spec::mmio::STATUS, 0);
    rig.queues = vec![DriverQueue::new(&rig.memory, GuestAddress(0x1_0000), 64)];
    rig.driver.bring_up(1 << vmcell::virtio::spec::feature::VERSION_1, &[&rig.queues[0]]);
    for count in 1..=5 {
        // Until the thread sleeps, and the driver has to ring.
        std::thread::sleep(Duration::from_millis(20));
        rig.request(FLUSH, 0, &[]);
        let looks = || rig.transport().doorbells == count && rig.transport().interrupts == count;
        rig.driver.wait_until("one more doorbell and interrupt", looks);
    }
    std::thread::sleep(Duration::from_millis(20));
    let metrics = rig.transport();
    assert_eq!((metrics.doorbells, metrics.interrupts), (5, 5));
}

/// A backend that gives its disk nothing but errors, and counts them.
struct Failing {
    failed: Counter,
    done: Vec<Done>,
}

impl DiskBackend for Failing {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(4096)
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        self.failed.add(1);
        self.done.push(Done::new(tag, operation, Err(std::io::ErrorKind::Other.into())));
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        self.done.pop()
    }

    fn metrics(&self, meter: &mut Meter) {
        meter.counter("failed", &self.failed);
    }
}

#[test]
fn errors_of_the_storage_are_counted_and_so_is_what_a_backend_counts_itself() {
    let disk = Disk::backend(Box::new(Failing { failed: Counter::new(), done: Vec::new() }));
    let handle = disk.handle();
    let mut rig = rig(disk.into_device().unwrap(), 1);
    rig.request(IN, 0, &[Buffer::writable(0x10_0000, 512)]);
    rig.request(FLUSH, 0, &[]);
    let metrics = handle.metrics();
    assert_eq!((metrics.reads, metrics.flushes, metrics.errors, metrics.read_bytes), (1, 1, 2, 0));
    assert_eq!(handle.backend_counters(), BTreeMap::from([("failed".to_owned(), 2)]));
    let replacement = Disk::backend(FileBackend::new(memory_disk(4096)).unwrap());
    handle.replace(replacement, Duration::from_secs(10)).unwrap();
    assert_eq!(handle.backend_counters(), BTreeMap::new(), "the other backend counts nothing");
    rig.request(FLUSH, 0, &[]);
    assert_eq!((handle.metrics().flushes, handle.metrics().errors), (2, 2));
}

/// Delivers a frame that fits and one that does not for each that it sends.
struct Mirror {
    socket: Arc<UnixDatagram>,
    owed: u32,
}

impl NicBackend for Mirror {
    fn info(&self) -> NicInfo {
        NicInfo::default()
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while self.owed > 0 && frames.put(io, &VnetHeader::default(), &[7; 60]) == Delivery::Delivered {
            self.owed -= 1;
            assert_eq!(frames.put(io, &VnetHeader::default(), &[7; 3000]), Delivery::Dropped);
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            let _ = frame.send_to(&self.socket);
            frames.done();
            self.owed += 1;
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        if self.owed > 0 && need.room {
            wants.again();
        }
    }

    fn metrics(&self, meter: &mut Meter) {
        let counter = Counter::new();
        counter.add(3);
        meter.counter("mirrors", &counter);
    }
}

#[test]
fn a_network_card_counts_frames_and_bytes_without_headers_and_what_it_drops() {
    let (_wire, socket) = UnixDatagram::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let nic = Nic::backend(Mirror { socket: Arc::new(socket), owed: 0 });
    let handle = nic.handle();
    let mut rig = rig(nic.into_device().unwrap(), 3);
    rig.memory.write(GuestAddress(0x8000), &[0; 12]).unwrap();
    let send = |rig: &mut Rig, len: u32| {
        rig.queues[1].offer(&[Buffer::readable(0x8000, len)]);
        rig.driver.kick(1);
        rig.driver.wait_used(&mut rig.queues[1]);
    };
    // One more than is filled, so that a frame that is too long comes to a buffer.
    rig.queues[0].offer(&[Buffer::writable(0x10_0000, 100)]);
    for _ in 0..2 {
        rig.queues[0].offer(&[Buffer::writable(0x10_0000, 100)]);
        rig.driver.kick(0);
        send(&mut rig, 112);
        rig.driver.wait_used(&mut rig.queues[0]);
    }
    send(&mut rig, 8); // shorter than its header
    handle.set_link(false);
    rig.driver.wait_until("the link to go down", || rig.driver.read(0x104) & 0x1_0000 == 0);
    send(&mut rig, 112);
    let metrics = handle.metrics();
    assert_eq!((metrics.sent_frames, metrics.sent_bytes, metrics.sent_dropped), (2, 200, 2), "{metrics:?}");
    let received = (metrics.received_frames, metrics.received_bytes, metrics.received_dropped);
    assert_eq!(received, (2, 120, 2), "{metrics:?}");
    assert_eq!(handle.backend_counters(), BTreeMap::from([("mirrors".to_owned(), 3)]));
}

struct Odd(Counter);

impl VirtioDevice for Odd {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(42, &[64])
    }

    fn activate(&mut self, _io: &mut Io, _activation: Activation) -> vmcell::Result<()> {
        self.0.add(1);
        Ok(())
    }

    fn process_queue(&mut self, _io: &mut Io, _queues: &mut Queues, _index: u16) -> vmcell::Result<()> {
        Ok(())
    }

    fn reset(&mut self, _io: &mut Io) {}

    fn metrics(&self, meter: &mut Meter) {
        meter.counter("activations", &self.0);
    }
}

#[test]
fn a_device_of_one_s_own_counts_what_it_likes() {
    let rig = rig(Box::new(Odd(Counter::new())), 1);
    let counted = || rig.driver.transport().own_counters()["activations"] == 1;
    rig.driver.wait_until("the activation to be counted", counted);
}

#[test]
fn an_io_thread_counts_turns_and_its_cpu_time() {
    let io_thread = IoThread::new("counted").unwrap();
    let before = io_thread.metrics();
    assert_eq!((before.name.as_str(), before.tid, before.longest_turn), ("counted", io_thread.tid(), None));
    io_thread.measure_turns();
    let device = Disk::from_file(memory_disk(4096)).unwrap().into_device().unwrap();
    let transport = MmioTransport::new(device, patterned_memory(1 << 20), &io_thread).unwrap();
    let begun = std::time::Instant::now();
    while io_thread.metrics().turns == before.turns {
        assert!(begun.elapsed() < Duration::from_secs(10), "attaching gives the device a turn");
    }
    let after = io_thread.metrics();
    assert!(after.longest_turn.is_some() && after.cpu_time > before.cpu_time, "{after:?}");
    drop(transport);
}
