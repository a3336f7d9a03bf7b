//! The device through its registers and a real queue, on a disk in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;
use crate::block::Disk;
use crate::memory::GuestAddress;
use crate::testing::{Buffer, DriverQueue, MmioDriver, is_untouched, memory_disk, patterned_memory};
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
    let memory = patterned_memory(1 << 20);
    let file = memory_disk(SECTORS * SECTOR);
    let disk = prepare(Disk::from_file(file.try_clone().unwrap()).unwrap());
    let device = Box::new(disk.build().unwrap());
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
