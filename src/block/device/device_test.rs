//! The device through its registers and a real queue, on a disk in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::ErrorKind;
use crate::block::{ByteRange, Disk, Tag, request::SECTOR};
use crate::bus::BusDevice;
use crate::event::{IoThread, TURN_TIME, Waker};
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, is_untouched, memory_disk, patterned_memory};
use crate::virtio::MmioTransport;
use crate::virtio::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use crate::virtio::spec::status::DEVICE_NEEDS_RESET;

const SECTORS: u64 = 64;
const HEADER: u64 = 0x10000;
const DATA: u64 = 0x20000;
const STATUS: u64 = 0x30000;
const MODERN: u64 = 1 << VERSION_1 | 1 << RING_EVENT_IDX | 1 << RING_INDIRECT_DESC;

struct Rig {
    driver: MmioDriver,
    queue: DriverQueue,
    file: File,
    memory: GuestMemory,
}

fn rig_with(features: u64, prepare: impl FnOnce(Disk) -> Disk) -> Rig {
    let file = memory_disk(SECTORS * SECTOR);
    let disk = prepare(Disk::from_file(file.try_clone().unwrap()).unwrap());
    rig_of(features, Box::new(disk.build().unwrap()), file)
}

fn rig_of(features: u64, device: Box<Block>, file: File) -> Rig {
    rig_on(&IoThread::new("test-io").unwrap(), features, device, file)
}

fn rig_on(io_thread: &IoThread, features: u64, device: Box<Block>, file: File) -> Rig {
    let memory = patterned_memory(1 << 20);
    let transport: Arc<MmioTransport> = MmioTransport::new(device, memory.clone(), io_thread).unwrap();
    let driver = MmioDriver::new(transport);
    let queue = DriverQueue::new(&memory, GuestAddress(0x1000), 16);
    driver.bring_up(features, &[&queue]);
    Rig { driver, queue, file, memory }
}

fn rig() -> Rig {
    rig_with(MODERN | 1 << feature::FLUSH, |disk| disk)
}

impl Rig {
    fn header(&self, kind: u32, sector: u64) -> Buffer {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(GuestAddress(HEADER), &bytes).unwrap();
        Buffer::readable(HEADER, 16)
    }

    fn out(&mut self, kind: u32, sector: u64, data: &[u8]) -> (u8, u32) {
        self.memory.write(GuestAddress(DATA), data).unwrap();
        let header = self.header(kind, sector);
        self.send(&[header, Buffer::readable(DATA, data.len() as u32), Buffer::writable(STATUS, 1)])
    }

    /// Sends a chain and gives its status byte and the used length.
    fn send(&mut self, buffers: &[Buffer]) -> (u8, u32) {
        self.memory.write(GuestAddress(STATUS), &[0xee]).unwrap();
        let head = self.queue.offer(buffers);
        self.driver.kick(0);
        let (id, written) = self.driver.wait_used(&mut self.queue);
        assert_eq!(id, u32::from(head));
        let mut status = [0];
        self.memory.read(GuestAddress(STATUS), &mut status).unwrap();
        assert!(is_untouched(&self.memory, STATUS + 1, 15), "more than the status byte was written");
        (status[0], written)
    }

    fn read(&mut self, sector: u64, len: u32) -> (u8, u32) {
        let header = self.header(0, sector);
        self.send(&[header, Buffer::writable(DATA, len), Buffer::writable(STATUS, 1)])
    }

    fn write(&mut self, sector: u64, len: u32) -> (u8, u32) {
        let header = self.header(1, sector);
        self.send(&[header, Buffer::readable(DATA, len), Buffer::writable(STATUS, 1)])
    }

    fn disk(&self) -> Vec<u8> {
        let mut bytes = vec![0; (SECTORS * SECTOR) as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut rig = rig();
    rig.memory.write(GuestAddress(DATA), &[7; 1024]).unwrap();
    assert_eq!(rig.write(3, 1024), (0, 1));
    let disk = rig.disk();
    assert!(disk[3 * 512..5 * 512].iter().all(|byte| *byte == 7));
    assert!(disk[..3 * 512].iter().chain(&disk[5 * 512..]).all(|byte| *byte == 0));

    rig.memory.write(GuestAddress(DATA), &[1; 1024]).unwrap();
    assert_eq!(rig.read(3, 1024), (0, 1025));
    let mut back = [0; 1024];
    rig.memory.read(GuestAddress(DATA), &mut back).unwrap();
    assert_eq!(back, [7; 1024]);
    assert!(is_untouched(&rig.memory, DATA + 1024, 512));
}

#[test]
fn the_config_space_says_what_the_specification_has_fields_for() {
    let rig = rig();
    let read = |offset: u64, len: usize| {
        let mut bytes = [0; 8];
        BusDevice::read(rig.driver.transport(), 0x100 + offset, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    };
    assert_eq!(read(0, 8), SECTORS);
    assert_eq!(read(12, 4), 254, "segments");
    assert_eq!(read(20, 4), 512, "block size");
    assert_eq!((read(36, 4), read(40, 4), read(44, 4)), (1 << 21, 32, 1), "discard");
    assert_eq!((read(48, 4), read(52, 4), read(56, 1)), (1 << 17, 1, 1), "zeroes");
    // C3 14: the driver must not be able to change it.
    for offset in 0..64 {
        BusDevice::write(rig.driver.transport(), 0x100 + offset, &[0xff]);
    }
    assert_eq!((read(0, 8), read(12, 4)), (SECTORS, 254));
}

#[test]
fn a_read_only_disk_stays_as_it_is_whatever_was_negotiated() {
    let mut rig = rig_with(1 << VERSION_1, |disk| disk.read_only(true));
    let offered = rig.driver.offered();
    assert!(offered & 1 << feature::RO != 0 && offered & (1 << feature::DISCARD | 1 << feature::WRITE_ZEROES) == 0);
    assert_eq!(rig.out(1, 0, &[7; 512]), (1, 1));
    assert_eq!(rig.out(11, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), (1, 1));
    assert_eq!(rig.out(13, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), (1, 1));
    assert!(rig.disk().iter().all(|byte| *byte == 0));
    assert_eq!(rig.read(0, 512), (0, 513));
}

#[test]
fn bad_requests_get_their_status_and_the_next_is_served() {
    let mut rig = rig();
    rig.memory.write(GuestAddress(DATA), &[7; 1024]).unwrap();
    // A read that failed has not written its first byte, so it claims none.
    assert_eq!(rig.read(SECTORS, 512), (1, 0));
    assert_eq!(rig.read(u64::MAX, 512), (1, 0));
    assert_eq!(rig.read(0, 100), (1, 0));
    assert_eq!(rig.write(SECTORS - 1, 1024), (1, 1));
    assert_eq!(rig.file.metadata().unwrap().len(), SECTORS * SECTOR, "a write past the end must not grow the file");
    let header = rig.header(99, 0);
    assert_eq!(rig.send(&[header, Buffer::writable(STATUS, 1)]), (2, 1));
    let header = rig.header(0, 0);
    assert_eq!(rig.send(&[header]), (0xee, 0), "no room for a status");
    assert_eq!(rig.send(&[Buffer::writable(STATUS, 1), header]), (0xee, 0), "readable after writable");
    assert_eq!(rig.write(0, 1024), (0, 1));
    assert_eq!(rig.disk()[..1024], [7; 1024]);
}

#[test]
fn the_serial_number_fills_twenty_bytes_and_not_one_more() {
    let mut rig = rig_with(MODERN, |disk| disk.serial("vmcell-7"));
    for (len, written) in [(20, 21), (5, 6), (100, 20)] {
        let header = rig.header(8, 0);
        rig.memory.write(GuestAddress(DATA), &[0xa5; 128]).unwrap();
        let answer = rig.send(&[header, Buffer::writable(DATA, len), Buffer::writable(STATUS, 1)]);
        assert_eq!(answer, (0, written));
        assert!(is_untouched(&rig.memory, DATA + u64::from(len.min(20)), 100));
    }
    let mut bytes = [0; 20];
    rig.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
    assert_eq!(&bytes, b"vmcell-7\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn discard_and_zeroes_change_their_range_and_no_other() {
    let mut rig = rig();
    rig.file.write_all_at(&[9; (SECTORS * SECTOR) as usize], 0).unwrap();
    let range = |sector: u64, count: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let zeros = |disk: &[u8]| disk.chunks(512).map(|sector| sector.iter().all(|byte| *byte == 0)).collect::<Vec<_>>();
    assert_eq!(rig.out(13, 0, &range(2, 3, 0)), (0, 1));
    assert_eq!(rig.out(13, 0, &range(10, 1, 1)), (0, 1));
    assert_eq!(rig.out(11, 0, &[range(20, 1, 0), range(30, 2, 0)].concat()), (0, 1));
    let expected: Vec<_> = (0..SECTORS).map(|at| [2, 3, 4, 10, 20, 30, 31].contains(&at)).collect();
    assert_eq!(zeros(&rig.disk()), expected);
    assert_eq!(rig.out(13, 0, &range(SECTORS, 1, 0)), (1, 1));
    assert_eq!(rig.out(11, 0, &range(0, u32::MAX, 0)), (1, 1));
    assert_eq!(rig.out(11, 0, &range(0, 0, 0)), (0, 1), "nothing is a range, too");
    assert_eq!(zeros(&rig.disk()), expected);
}

#[test]
fn sixty_four_segments_are_one_request() {
    let mut rig = rig();
    let queue = DriverQueue::new(&rig.memory, GuestAddress(0x4000), 256);
    rig.queue = queue;
    rig.driver.bring_up(MODERN | 1 << feature::FLUSH, &[&rig.queue]);
    for index in 0..64u8 {
        rig.memory.write(GuestAddress(DATA + u64::from(index) * 1024), &[index; 512]).unwrap();
    }
    let header = rig.header(1, 0);
    let data = (0..64).map(|index| Buffer::readable(DATA + index * 1024, 512));
    let buffers: Vec<_> = [header].into_iter().chain(data).chain([Buffer::writable(STATUS, 1)]).collect();
    assert_eq!(rig.send(&buffers), (0, 1));
    let disk = rig.disk();
    assert!((0..64usize).all(|index| disk[index * 512..][..512] == [index as u8; 512]));
}

/// How a backend of the tests behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Good,
    Fails(i32),
    /// Has room for so many operations, and completes them when it is told.
    Room(usize),
    CompletesTwice,
    CompletesAnother,
    InventsATag,
    Panics,
    PanicsInWants,
    NeverCompletes,
    PanicsInCancel,
    /// Does so when it is woken after it was told to cancel.
    PanicsAfterCancel,
}

/// Notes what it is asked for, and behaves as it is told.
struct Scripted {
    manner: Manner,
    seen: Arc<Seen>,
    todo: VecDeque<(Tag, Operation)>,
    done: VecDeque<Done>,
    cancelled: bool,
    info: DiskInfo,
}

#[derive(Default)]
struct Seen {
    log: Mutex<Vec<String>>,
    go: Mutex<usize>,
    calls: Mutex<u32>,
    waker: Mutex<Option<Waker>>,
}

impl Seen {
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Lets so many operations be completed.
    fn go(&self, count: usize) {
        *self.go.lock().unwrap() += count;
        self.waker.lock().unwrap().as_ref().unwrap().wake();
    }
}

impl Scripted {
    fn finish(&mut self) {
        while let Some((tag, operation)) = self.todo.pop_front() {
            let error = if let Manner::Fails(error) = self.manner { Some(error) } else { None };
            let result = error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)));
            let operation = if self.manner == Manner::CompletesAnother { Operation::Flush } else { operation };
            self.done.push_back(Done::new(tag, operation, result));
            if self.manner == Manner::CompletesTwice {
                self.done.push_back(Done::new(tag, Operation::Flush, Ok(())));
            }
        }
    }
}

impl DiskBackend for Scripted {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        *self.seen.waker.lock().unwrap() = Some(io.waker(token));
        Ok(())
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        *self.seen.calls.lock().unwrap() += 1;
        assert_ne!(self.manner, Manner::Panics, "told to panic");
        if let Manner::Room(room) = self.manner
            && self.todo.len() >= room
        {
            return Err(operation);
        }
        let entry = match &operation {
            Operation::Read { at, into } => format!("read {at} {}", into.len()),
            Operation::Write { at, from, stable } => format!("write {at} {} {stable}", from.len()),
            Operation::Flush => "flush".to_owned(),
            Operation::Discard(ByteRange { at, len }) => format!("discard {at} {len}"),
            Operation::WriteZeroes { range: ByteRange { at, len }, .. } => format!("zeroes {at} {len}"),
        };
        self.seen.log.lock().unwrap().push(entry);
        self.todo.push_back((tag, operation));
        let holds = matches!(
            self.manner,
            Manner::Room(_) | Manner::NeverCompletes | Manner::PanicsInCancel | Manner::PanicsAfterCancel
        );
        if !holds {
            self.finish();
        }
        if self.manner == Manner::InventsATag {
            self.done.push_back(Done::new(Tag::from_bits(77), Operation::Flush, Ok(())));
        }
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        let mut go = self.seen.go.lock().unwrap();
        if *go > 0
            && let Some((tag, operation)) = self.todo.pop_front()
        {
            *go -= 1;
            return Some(Done::new(tag, operation, Ok(())));
        }
        self.done.pop_front()
    }

    fn cancel(&mut self, _io: &mut Io) {
        self.cancelled = !self.todo.is_empty();
        assert!(self.manner != Manner::PanicsInCancel || !self.cancelled, "told to panic");
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {
        assert!(self.manner != Manner::PanicsAfterCancel || !self.cancelled, "told to panic");
    }

    fn wants(&self, _wants: &mut Wants) {
        assert!(self.manner != Manner::PanicsInWants || self.seen.log().is_empty(), "told to panic");
    }
}

fn backend(manner: Manner, info: DiskInfo) -> (Scripted, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let (todo, done) = (VecDeque::new(), VecDeque::new());
    (Scripted { manner, seen: Arc::clone(&seen), todo, done, cancelled: false, info }, seen)
}

fn scripted_on(io_thread: &IoThread, features: u64, manner: Manner, info: DiskInfo) -> (Rig, Arc<Seen>) {
    let (backend, seen) = backend(manner, info);
    let backend = Guarded::new(Box::new(backend) as Box<dyn DiskBackend>, "backend", ErrorKind::Disk);
    let device = Block::new(backend, info, false, "", Arc::default(), 1);
    (rig_on(io_thread, features, Box::new(device), memory_disk(512)), seen)
}

fn scripted(features: u64, manner: Manner) -> (Rig, Arc<Seen>) {
    scripted_on(&IoThread::new("test-io").unwrap(), features, manner, DiskInfo::new(SECTORS * SECTOR))
}

const FLUSHES: u64 = MODERN | 1 << feature::FLUSH;

#[test]
fn a_driver_that_does_not_flush_gets_stable_writes() {
    let (mut rig, seen) = scripted(MODERN, Manner::Good);
    assert_eq!(rig.write(0, 512), (0, 1));
    assert_eq!(seen.log(), ["write 0 512 true"]);

    let (mut rig, seen) = scripted(FLUSHES, Manner::Good);
    assert_eq!(rig.write(0, 512), (0, 1));
    assert_eq!(rig.out(4, 0, &[0; 16]), (0, 1));
    assert_eq!(seen.log(), ["write 0 512 false", "flush"]);
}

#[test]
fn errors_of_the_host_are_errors_of_the_disk() {
    for error in [libc::EIO, libc::ENOSPC] {
        let (mut rig, _) = scripted(FLUSHES, Manner::Fails(error));
        assert_eq!(rig.read(0, 512), (1, 0));
        assert_eq!(rig.write(0, 512), (1, 1));
        assert_eq!(rig.out(4, 0, &[0; 16]), (1, 1));
    }
}

#[test]
fn what_is_larger_than_the_backend_takes_is_cut() {
    let info = DiskInfo { max_transfer: 1024, max_range: 2048, ..DiskInfo::new(SECTORS * SECTOR) };
    let (mut rig, seen) = scripted_on(&IoThread::new("test-io").unwrap(), FLUSHES, Manner::Good, info);
    assert_eq!(rig.read(2, 2560), (0, 2561));
    assert_eq!(seen.log(), ["read 1024 1024", "read 2048 1024", "read 3072 512"]);
    seen.log.lock().unwrap().clear();
    let range = |sector: u64, count: u32| [&sector.to_le_bytes()[..], &count.to_le_bytes(), &[0; 4]].concat();
    assert_eq!(rig.out(11, 0, &[range(0, 5), range(9, 0), range(10, 1)].concat()), (0, 1));
    assert_eq!(rig.out(13, 0, &range(0, 5)), (0, 1));
    let expected = ["discard 0 2048", "discard 2048 512", "discard 5120 512", "zeroes 0 2048", "zeroes 2048 512"];
    assert_eq!(seen.log(), expected);
}

#[test]
fn a_request_that_is_cut_ends_with_its_first_error() {
    let info = DiskInfo { max_transfer: 512, ..DiskInfo::new(SECTORS * SECTOR) };
    let io_thread = IoThread::new("test-io").unwrap();
    let (mut rig, seen) = scripted_on(&io_thread, FLUSHES, Manner::Fails(libc::EIO), info);
    assert_eq!(rig.write(0, 2048), (1, 1));
    assert_eq!(seen.log(), ["write 0 512 false"]);
}

#[test]
fn a_backend_without_room_gets_the_rest_when_it_has_some() {
    let (mut rig, seen) = scripted(FLUSHES, Manner::Room(2));
    let header = rig.header(0, 0);
    for index in 0..5 {
        let status = Buffer::writable(STATUS + 16 * index, 1);
        rig.queue.offer(&[header, Buffer::writable(DATA + 0x1000 * index, 512), status]);
    }
    rig.driver.kick(0);
    rig.driver.wait_until("two operations", || seen.log().len() == 2);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((seen.log().len(), rig.queue.used_index()), (2, 0));
    for _ in 0..5 {
        seen.go(1);
        assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 513);
    }
}

/// What a backend does to the disk after a reset, it would do to the data of the driver's next life.
#[test]
fn a_reset_waits_for_operations_that_have_no_buffer() {
    let (mut rig, seen) = scripted(FLUSHES, Manner::Room(1));
    let header = rig.header(4, 0);
    rig.queue.offer(&[header, Buffer::writable(STATUS, 1)]);
    rig.driver.kick(0);
    rig.driver.wait_until("an operation", || seen.log() == ["flush"]);
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| rig.driver.write(crate::virtio::spec::mmio::STATUS, 0));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!vcpu.is_finished());
        seen.go(1);
        vcpu.join().unwrap();
    });
    assert_eq!((rig.driver.status(), rig.queue.used_index()), (0, 0));
}

#[test]
fn a_pause_puts_back_what_the_backend_had_no_room_for() {
    let (mut rig, seen) = scripted(FLUSHES, Manner::Room(1));
    let header = rig.header(0, 0);
    for index in 0..3 {
        let status = Buffer::writable(STATUS + 16 * index, 1);
        rig.queue.offer(&[header, Buffer::writable(DATA + 0x1000 * index, 512), status]);
    }
    rig.driver.kick(0);
    rig.driver.wait_until("an operation", || seen.log().len() == 1);
    std::thread::scope(|scope| {
        let pause = scope.spawn(|| rig.driver.transport().pause(Duration::from_secs(10)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!pause.is_finished());
        seen.go(1);
        pause.join().unwrap().unwrap();
    });
    let state = rig.driver.transport().save().unwrap();
    assert_eq!((state.queues[0].progress.next_avail, state.queues[0].progress.next_used), (1, 1));
    rig.driver.transport().resume();
    seen.go(2);
    (0..3).for_each(|_| assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 513));
}

#[test]
fn a_backend_that_breaks_a_rule_harms_its_own_disk_only_and_is_never_called_again() {
    let manners =
        [Manner::CompletesTwice, Manner::CompletesAnother, Manner::InventsATag, Manner::Panics, Manner::PanicsInWants];
    for manner in manners {
        let io_thread = IoThread::new("test-io").unwrap();
        let info = DiskInfo::new(SECTORS * SECTOR);
        let (mut bad, seen) = scripted_on(&io_thread, FLUSHES, manner, info);
        let (mut good, _) = scripted_on(&io_thread, FLUSHES, Manner::Good, info);
        let needs_reset = |rig: &Rig| rig.driver.status() & DEVICE_NEEDS_RESET != 0;
        let header = bad.header(0, 0);
        bad.queue.offer(&[header, Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
        bad.driver.kick(0);
        bad.driver.wait_until("the failure", || needs_reset(&bad));
        assert_eq!(good.write(0, 512), (0, 1), "{manner:?}");
        let calls = *seen.calls.lock().unwrap();
        bad.driver.write(crate::virtio::spec::mmio::STATUS, 0);
        bad.queue = DriverQueue::new(&bad.memory, GuestAddress(0x1000), 16);
        bad.driver.bring_up(FLUSHES, &[&bad.queue]);
        bad.driver.wait_until("the failure", || needs_reset(&bad));
        bad.driver.kick(0);
        assert_eq!(good.read(0, 512).0, 0, "{manner:?}");
        assert_eq!(*seen.calls.lock().unwrap(), calls, "{manner:?}");
    }
}

#[test]
fn a_backend_that_never_completes_holds_up_a_reset_and_a_pause_of_its_own_disk_only() {
    let io_thread = IoThread::new("test-io").unwrap();
    let info = DiskInfo::new(SECTORS * SECTOR);
    let (mut bad, seen) = scripted_on(&io_thread, FLUSHES, Manner::NeverCompletes, info);
    let (mut good, _) = scripted_on(&io_thread, FLUSHES, Manner::Good, info);
    let header = bad.header(0, 0);
    bad.queue.offer(&[header, Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
    bad.driver.kick(0);
    bad.driver.wait_until("an operation", || seen.log().len() == 1);
    assert!(bad.driver.transport().pause(Duration::from_millis(50)).is_err());
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| bad.driver.write(crate::virtio::spec::mmio::STATUS, 0));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!vcpu.is_finished());
        assert_eq!(good.write(0, 512), (0, 1));
        bad.driver.transport().close();
    });
}

#[test]
fn requests_of_4_gib_leave_a_neighbour_its_turns() {
    let io_thread = IoThread::new("test-io").unwrap();
    let info = DiskInfo::new(SECTORS * SECTOR);
    let (mut good, _) = scripted_on(&io_thread, FLUSHES, Manner::Good, info);
    let memory = GuestMemory::anonymous(&[(GuestAddress(0), 32 << 20)]).unwrap();
    let file = memory_disk(4 << 30);
    let device = Box::new(Disk::from_file(file.try_clone().unwrap()).unwrap().build().unwrap());
    let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), &io_thread).unwrap());
    let mut queue = DriverQueue::new(&memory, GuestAddress(0x1000), 256);
    driver.bring_up(FLUSHES, &[&queue]);
    // 32 tables of 252 descriptors of 16 MiB each over the same memory: nearly 4 GiB a request.
    let large = Buffer::writable(16 << 20, 16 << 20);
    for table in 0..32u64 {
        let mut buffers = vec![Buffer::readable(0x8000, 16)];
        buffers.extend([large; 252]);
        buffers.push(Buffer::writable(0x9000 + table, 1));
        queue.offer_indirect(0x1_0000 + table * 0x1000, &buffers);
    }
    io_thread.measure_turns();
    driver.kick(0);
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_millis(300) {
        assert_eq!(good.write(0, 512), (0, 1));
        rounds += 1;
    }
    assert!(rounds > 50, "{rounds} requests of the neighbour in 300 ms");
    let longest = io_thread.longest_turn();
    // The bound, and one operation on memory that the host had to provide first.
    assert!(longest < 4 * TURN_TIME, "{longest:?}");
    let begun = Instant::now();
    driver.write(crate::virtio::spec::mmio::STATUS, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(queue.take_used(), None, "it was cut off in the middle");
}

#[test]
fn a_disk_that_grows_tells_its_driver() {
    let file = memory_disk(SECTORS * SECTOR);
    let disk = Disk::from_file(file.try_clone().unwrap()).unwrap();
    let handle = disk.handle();
    let mut rig = rig_of(FLUSHES, Box::new(disk.build().unwrap()), file);
    let capacity = |rig: &Rig| rig.driver.read(0x100);
    assert_eq!((rig.read(SECTORS, 512).0, capacity(&rig)), (1, SECTORS as u32));
    let generation = rig.driver.read(0xfc);
    rig.driver.write(0x64, 3);
    rig.file.set_len(2 * SECTORS * SECTOR).unwrap();
    handle.refresh();
    rig.driver.wait_until("the news", || rig.driver.read(0x60) & 2 != 0);
    assert_eq!(capacity(&rig), 2 * SECTORS as u32);
    assert_ne!(rig.driver.read(0xfc), generation);
    assert_eq!(rig.read(SECTORS, 512), (0, 513));
}

#[test]
fn a_disk_whose_file_is_exchanged_goes_on_with_the_other() {
    let first = memory_disk(SECTORS * SECTOR);
    let disk = Disk::from_file(first.try_clone().unwrap()).unwrap();
    let handle = disk.handle();
    let other = |sectors: u64| {
        let file = memory_disk(sectors * SECTOR);
        (Disk::from_file(file.try_clone().unwrap()).unwrap(), file)
    };
    let limit = Duration::from_millis(50);
    assert_eq!(handle.replace(other(1).0, limit).unwrap_err().kind(), crate::ErrorKind::Timeout, "no VM yet");
    let mut rig = rig_of(FLUSHES, Box::new(disk.build().unwrap()), first);
    assert!(handle.replace(other(1).0.read_only(true), limit).unwrap_err().to_string().contains("is read-only"));
    let limit = Duration::from_secs(10);
    let (larger, file) = other(2 * SECTORS);
    handle.replace(larger, limit).unwrap();
    rig.memory.write(GuestAddress(DATA), &[7; 512]).unwrap();
    assert_eq!(rig.write(SECTORS, 512), (0, 1));
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, SECTORS * SECTOR).unwrap();
    assert_eq!(bytes, [7; 512]);
    assert!(rig.disk().iter().all(|byte| *byte == 0), "the first one is as it was");
    drop(rig);
    assert_eq!(handle.replace(other(1).0, limit).unwrap_err().kind(), crate::ErrorKind::InvalidState);
}

/// A disk that can be changed, on a backend that behaves as it is told.
fn changeable(manner: Manner) -> (Rig, Arc<Seen>, crate::block::DiskHandle) {
    let info = DiskInfo::new(SECTORS * SECTOR);
    let (backend, seen) = backend(manner, info);
    let disk = Disk::backend(backend);
    let handle = disk.handle();
    (rig_of(FLUSHES, Box::new(disk.build().unwrap()), memory_disk(512)), seen, handle)
}

#[test]
fn changes_that_are_asked_for_together_are_all_made() {
    let (rig, _, handle) = changeable(Manner::Good);
    let replace = || {
        let (next, _) = backend(Manner::Good, DiskInfo::new(SECTORS * SECTOR));
        handle.replace(Disk::backend(next), Duration::from_secs(5))
    };
    for _ in 0..3 {
        rig.driver.transport().pause(MmioDriver::PATIENCE).unwrap();
        handle.refresh();
        std::thread::scope(|scope| {
            let replaced = [(); 3].map(|()| scope.spawn(replace));
            std::thread::sleep(Duration::from_millis(50));
            handle.refresh();
            // The disk hears of them all at once.
            rig.driver.transport().resume();
            replaced.into_iter().for_each(|replaced| replaced.join().unwrap().unwrap());
        });
    }
}

#[test]
fn a_backend_that_takes_the_place_of_another_gets_only_what_it_can_take() {
    let (mut rig, _, handle) = changeable(Manner::Room(0));
    let header = rig.header(0, 32);
    rig.queue.offer(&[header, Buffer::writable(DATA, 1024), Buffer::writable(STATUS, 1)]);
    rig.driver.kick(0);
    std::thread::sleep(Duration::from_millis(20));
    let coarse = DiskInfo { block_size: 4096, ..DiskInfo::new(8192) };
    let error = handle.replace(Disk::backend(backend(Manner::Good, coarse).0), Duration::from_secs(5)).unwrap_err();
    assert!(error.to_string().contains("4096"), "{error}");
    let small = DiskInfo { max_transfer: 512, ..DiskInfo::new(8 * SECTOR) };
    let (next, seen) = backend(Manner::Good, small);
    handle.replace(Disk::backend(next), Duration::from_secs(5)).unwrap();
    // It lies behind the end of the new disk.
    assert_eq!(rig.driver.wait_used(&mut rig.queue).1, 0);
    assert_eq!(seen.log(), Vec::<String>::new());
    assert_eq!(rig.read(6, 1024), (0, 1025));
    assert_eq!(seen.log(), ["read 3072 512", "read 3584 512"]);
    assert_eq!(rig.read(8, 512), (1, 0));
}

#[test]
fn an_exchange_that_was_given_up_lets_the_disk_go_on() {
    let (mut rig, seen, handle) = changeable(Manner::Room(2));
    let header = rig.header(0, 0);
    let offer = |rig: &mut Rig| {
        rig.queue.offer(&[header, Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
        rig.driver.kick(0);
    };
    offer(&mut rig);
    rig.driver.wait_until("an operation", || seen.log().len() == 1);
    let (next, _) = backend(Manner::Good, DiskInfo::new(SECTORS * SECTOR));
    let error = handle.replace(Disk::backend(next), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    offer(&mut rig);
    rig.driver.wait_until("another operation", || seen.log().len() == 2);
}

/// Has no room at first, and asks for another turn.
#[derive(Default)]
struct Shy {
    asked: bool,
    done: VecDeque<Done>,
}

impl DiskBackend for Shy {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(SECTORS * SECTOR)
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if !std::mem::replace(&mut self.asked, true) {
            return Err(operation);
        }
        self.done.push_back(Done::new(tag, operation, Ok(())));
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        self.done.pop_front()
    }

    fn wants(&self, wants: &mut Wants) {
        if self.asked {
            wants.again();
        }
    }
}

#[test]
fn a_backend_without_room_that_asks_for_another_turn_is_tried_again_in_it() {
    let disk = Disk::backend(Shy::default()).build().unwrap();
    let mut rig = rig_of(FLUSHES, Box::new(disk), memory_disk(512));
    assert_eq!(rig.read(0, 512), (0, 513));
}

#[test]
fn a_file_that_shrank_gives_errors_and_what_is_left() {
    let mut rig = rig();
    rig.file.set_len(512).unwrap();
    assert_eq!(rig.read(0, 1024), (1, 0));
    assert_eq!(rig.read(0, 512), (0, 513));
}

#[test]
fn it_passes_the_suite_for_all_devices() {
    let make = || {
        let disk = Disk::from_file(memory_disk(SECTORS * SECTOR)).unwrap();
        Box::new(disk.build().unwrap()) as Box<dyn VirtioDevice>
    };
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        let queue = &mut queues[0];
        queue.memory().write(GuestAddress(HEADER), &[0; 16]).unwrap();
        let buffers = [Buffer::readable(HEADER, 16), Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)];
        let head = queue.offer(&buffers);
        driver.kick(0);
        assert_eq!(driver.wait_used(queue), (head.into(), 513));
    };
    Conformance::new(make, serves, 1 << feature::FLUSH).run();
}

#[test]
fn each_of_several_queues_is_served_and_answered_on_its_own() {
    let file = memory_disk(SECTORS * SECTOR);
    let disk = Disk::from_file(file).unwrap().queues(3);
    let memory = patterned_memory(1 << 20);
    let io_thread = IoThread::new("test-io").unwrap();
    let driver = MmioDriver::new(MmioTransport::new(disk.into_device().unwrap(), memory.clone(), &io_thread).unwrap());
    assert_ne!(driver.offered() & 1 << feature::MQ, 0);
    let mut queues = [0x1000, 0x2000, 0x3000].map(|base| DriverQueue::new(&memory, GuestAddress(base), 16));
    driver.bring_up(MODERN | 1 << feature::MQ, &queues.each_ref());
    memory.write(GuestAddress(HEADER), &[0; 16]).unwrap();
    for round in 0..200u64 {
        let mut heads = [0; 3];
        for (index, queue) in (0u64..).zip(&mut queues) {
            let status = STATUS + index * 16;
            memory.write(GuestAddress(status), &[0xee]).unwrap();
            let data = Buffer::writable(DATA + index * 4096, 512);
            heads[index as usize] = queue.offer(&[Buffer::readable(HEADER, 16), data, Buffer::writable(status, 1)]);
        }
        if round % 5 == 0 {
            driver.transport().pause(Duration::from_secs(10)).unwrap();
            driver.transport().resume();
        }
        (0..3).rev().for_each(|index| driver.kick(index));
        for (index, queue) in queues.iter_mut().enumerate() {
            assert_eq!(driver.wait_used(queue), (heads[index].into(), 513), "queue {index} in round {round}");
            let mut status = [0xee];
            memory.read(GuestAddress(STATUS + index as u64 * 16), &mut status).unwrap();
            assert_eq!((status, queue.take_used()), ([0], None));
        }
    }
}

#[test]
fn a_driver_may_use_fewer_queues_than_there_are() {
    let mut rig = rig_with(MODERN | 1 << feature::FLUSH, |disk| disk.queues(4));
    assert_eq!(rig.write(3, 1024), (0, 1));
    let mut config = [0; 2];
    rig.driver.transport().read(0x100 + 34, &mut config);
    assert_eq!(u16::from_le_bytes(config), 4);
}

#[path = "device_change_test.rs"]
mod changes;

#[path = "limit_test.rs"]
mod limits;
