//! Direct I/O in flight while a driver resets its disk, the host pauses it, or it goes: nothing is lost, done twice, or done late.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread};

const SLOTS: u64 = 64;
const BLOCK: u64 = 4096;
const HEADERS: u64 = 0x8000;
const STATUS: u64 = 0x9000;
const DATA: u64 = 0x10_0000;

struct Rig {
    memory: GuestMemory,
    driver: MmioDriver,
    queue: DriverQueue,
    file: File,
    _directory: tempfile::TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path: PathBuf = directory.path().join("disk");
    std::fs::write(&path, vec![0xaa; (SLOTS * BLOCK) as usize]).unwrap();
    let memory = patterned_memory(4 << 20);
    let device = Disk::open(&path).unwrap().direct(true).into_device().unwrap();
    let transport = MmioTransport::new(device, memory.clone(), &IoThread::new("in-flight").unwrap()).unwrap();
    let driver = MmioDriver::new(transport);
    let queue = DriverQueue::new(&memory, GuestAddress(0x1_0000), 256);
    let file = OpenOptions::new().read(true).open(path).unwrap();
    Rig { memory, driver, queue, file, _directory: directory }
}

impl Rig {
    fn bring_up(&mut self) {
        self.queue = DriverQueue::new(&self.memory, GuestAddress(0x1_0000), 256);
        self.driver.bring_up(self.driver.offered(), &[&self.queue]);
    }

    /// Offers a request for each slot's block: writes of `byte`, or reads.
    fn offer_all(&mut self, write: Option<u8>) {
        for slot in 0..SLOTS {
            let mut header = [0; 16];
            header[0] = u8::from(write.is_some());
            header[8..].copy_from_slice(&(slot * BLOCK / 512).to_le_bytes());
            self.memory.write(GuestAddress(HEADERS + slot * 16), &header).unwrap();
            self.memory.write(GuestAddress(STATUS + slot), &[0xff]).unwrap();
            let (at, len) = (DATA + slot * BLOCK, BLOCK as u32);
            let data = match write {
                Some(byte) => {
                    self.memory.write(GuestAddress(at), &vec![byte; len as usize]).unwrap();
                    Buffer::readable(at, len)
                }
                None => Buffer::writable(at, len),
            };
            let header = Buffer::readable(HEADERS + slot * 16, 16);
            self.queue.offer(&[header, data, Buffer::writable(STATUS + slot, 1)]);
        }
        self.driver.kick(0);
    }

    fn bytes(&self, slot: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        self.memory.read(GuestAddress(DATA + slot * BLOCK), &mut bytes).unwrap();
        bytes
    }
}

#[test]
fn a_pause_loses_and_repeats_nothing() {
    let mut rig = rig();
    rig.bring_up();
    for round in 1..=20u8 {
        rig.offer_all(Some(round));
        for _ in 0..4 {
            rig.driver.transport().pause(Duration::from_secs(10)).unwrap();
            let used = rig.queue.used_index();
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(rig.queue.used_index(), used, "something was completed while the disk stood still");
            rig.driver.transport().resume();
        }
        let heads: HashSet<u32> = (0..SLOTS).map(|_| rig.driver.wait_used(&mut rig.queue).0).collect();
        assert_eq!(heads.len() as u64, SLOTS, "a request was completed twice");
        assert!(rig.queue.take_used().is_none());
        for slot in 0..SLOTS {
            let mut bytes = vec![0; BLOCK as usize];
            rig.file.read_exact_at(&mut bytes, slot * BLOCK).unwrap();
            assert!(bytes.iter().all(|byte| *byte == round), "block {slot} of round {round}");
        }
    }
}

#[test]
fn after_a_reset_nothing_reaches_the_guest_any_more() {
    let mut rig = rig();
    for round in 0..40u64 {
        rig.bring_up();
        rig.offer_all(None);
        // Now and then some are done already.
        std::thread::sleep(Duration::from_micros(round * 20));
        rig.driver.write(vmcell::virtio::spec::mmio::STATUS, 0);
        for slot in 0..SLOTS {
            rig.memory.write(GuestAddress(DATA + slot * BLOCK), &[0x33; BLOCK as usize]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
        for slot in 0..SLOTS {
            assert!(rig.bytes(slot).iter().all(|byte| *byte == 0x33), "a read arrived after the reset, round {round}");
        }
    }
}

#[test]
fn a_disk_that_goes_leaves_the_guest_alone() {
    for round in 0..20u64 {
        let mut rig = rig();
        rig.bring_up();
        rig.offer_all(None);
        std::thread::sleep(Duration::from_micros(round * 20));
        let Rig { memory, driver, queue, .. } = rig;
        drop((driver, queue));
        memory.write(GuestAddress(DATA), &vec![0x33; (SLOTS * BLOCK) as usize]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let mut bytes = vec![0; (SLOTS * BLOCK) as usize];
        memory.read(GuestAddress(DATA), &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0x33), "a read arrived after the disk had gone, round {round}");
    }
}
