//! The device through its registers and a real queue, on a disk in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use super::*;
use crate::block::Disk;
use crate::bus::BusDevice;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, Conformance, DriverQueue, MmioDriver, is_untouched, memory_disk, patterned_memory};
use crate::virtio::spec::feature::{RING_EVENT_IDX, RING_INDIRECT_DESC, VERSION_1};
use crate::virtio::{IoThread, MmioTransport};

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
    let memory = patterned_memory(1 << 20);
    let io_thread = IoThread::new("test-io").unwrap();
    let transport: Arc<MmioTransport> = MmioTransport::new(device, memory.clone(), &io_thread).unwrap();
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
    assert_eq!(rig.read(SECTORS, 512), (1, 1));
    assert_eq!(rig.read(u64::MAX, 512), (1, 1));
    assert_eq!(rig.read(0, 100), (1, 1));
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
    for (len, written) in [(20, 21), (5, 6), (100, 21)] {
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

/// Counts what it is asked for, and answers as it is told.
struct Scripted {
    log: Arc<Mutex<Vec<&'static str>>>,
    error: Option<i32>,
}

impl Backend for Scripted {
    fn run(&mut self, operation: &Operation) -> io::Result<()> {
        let name = match operation {
            Operation::Read { .. } => "read",
            Operation::Write { .. } => "write",
            Operation::Flush => "flush",
            Operation::Discard(_) => "discard",
            Operation::WriteZeroes { .. } => "zeroes",
        };
        self.log.lock().unwrap().push(name);
        self.error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }
}

fn scripted(features: u64, error: Option<i32>) -> (Rig, Arc<Mutex<Vec<&'static str>>>) {
    let log = Arc::default();
    let backend = Box::new(Scripted { log: Arc::clone(&log), error });
    let device = Block::new(backend, Limits { capacity: SECTORS, read_only: false }, "");
    (rig_of(features, Box::new(device), memory_disk(512)), log)
}

#[test]
fn a_driver_that_does_not_flush_gets_stable_writes() {
    let (mut rig, log) = scripted(MODERN, None);
    assert_eq!(rig.write(0, 512), (0, 1));
    assert_eq!(*log.lock().unwrap(), ["write", "flush"]);

    let (mut rig, log) = scripted(MODERN | 1 << feature::FLUSH, None);
    assert_eq!(rig.write(0, 512), (0, 1));
    assert_eq!(rig.out(4, 0, &[0; 16]), (0, 1));
    assert_eq!(*log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn errors_of_the_host_are_errors_of_the_disk() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for error in [EIO, ENOSPC] {
        let (mut rig, _) = scripted(MODERN | 1 << feature::FLUSH, Some(error));
        assert_eq!(rig.read(0, 512), (1, 1));
        assert_eq!(rig.write(0, 512), (1, 1));
        assert_eq!(rig.out(4, 0, &[0; 16]), (1, 1));
    }
}

#[test]
fn a_file_that_shrank_gives_errors_and_what_is_left() {
    let mut rig = rig();
    rig.file.set_len(512).unwrap();
    assert_eq!(rig.read(0, 1024), (1, 1));
    assert_eq!(rig.read(0, 512), (0, 513));
}

#[test]
fn it_stands_what_every_device_must() {
    let make = || {
        let disk = Disk::from_file(memory_disk(SECTORS * SECTOR)).unwrap();
        Box::new(disk.build().unwrap()) as Box<dyn VirtioDevice>
    };
    let serves = |driver: &MmioDriver, queues: &mut [DriverQueue]| {
        let queue = &mut queues[0];
        queue.memory().write(GuestAddress(HEADER), &[0; 16]).unwrap();
        queue.offer(&[Buffer::readable(HEADER, 16), Buffer::writable(DATA, 512), Buffer::writable(STATUS, 1)]);
        driver.kick(0);
        assert_eq!(driver.wait_used(queue), (0, 513));
    };
    Conformance::new(make, serves, 1 << feature::FLUSH).run();
}
