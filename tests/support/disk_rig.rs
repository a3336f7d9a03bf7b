//! A disk with its driver, on any I/O thread.

use vmcell::testing::{Buffer, DriverQueue, MmioDriver, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, GuestAddress, GuestMemory, IoThread};

const HEADER: u64 = 0x8000;
pub const STATUS: u64 = 0x9000;
pub const DATA: u64 = 0x2_0000;

pub struct DiskRig {
    pub memory: GuestMemory,
    pub driver: MmioDriver,
    pub queue: DriverQueue,
}

impl DiskRig {
    pub fn new(disk: Disk, io_thread: &IoThread) -> Self {
        let memory = patterned_memory(1 << 20);
        let transport = MmioTransport::new(disk.into_device().unwrap(), memory.clone(), io_thread).unwrap();
        let (driver, queue) = (MmioDriver::new(transport), DriverQueue::new(&memory, GuestAddress(0x1_0000), 256));
        driver.bring_up(driver.offered(), &[&queue]);
        Self { memory, driver, queue }
    }

    /// All requests share one header and one status, so they are to be of one kind at a time.
    pub fn offer(&mut self, kind: u32, sector: u64, data: &[Buffer]) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.memory.write(GuestAddress(HEADER), &header).unwrap();
        let chain = [&[Buffer::readable(HEADER, 16)], data, &[Buffer::writable(STATUS, 1)]].concat();
        self.queue.offer(&chain);
        self.driver.kick(0);
    }
}
