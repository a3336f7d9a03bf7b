//! The registers of a device, as a vCPU thread uses them.

use vmcell::Disk;
use vmcell::bus::BusDevice;
use vmcell::testing::{InlineIo, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::virtio::spec::mmio;

use crate::offer::Offers;
use crate::piece::Piece;

const ROOM: &str = "mmio";
const MANY: u64 = 64;
/// What its own part of a disk's config space holds first: the capacity, of which this is the size in sectors.
const SECTORS: u64 = 8;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "read-interrupt-status", operations: MANY, make: || read(mmio::INTERRUPT_STATUS, 0) },
    Piece { room: ROOM, name: "read-queue-max", operations: MANY, make: || read(mmio::QUEUE_NUM_MAX, 256) },
    Piece { room: ROOM, name: "read-config", operations: MANY, make: read_config },
    Piece { room: ROOM, name: "acknowledge", operations: MANY, make: || write(mmio::INTERRUPT_ACK) },
    Piece { room: ROOM, name: "select-queue", operations: MANY, make: || write(mmio::QUEUE_SEL) },
    Piece { room: ROOM, name: "notify", operations: MANY, make: || write(mmio::QUEUE_NOTIFY) },
];

/// A disk whose driver is ready, and the thread that it lives on.
fn disk() -> (InlineIo, MmioDriver) {
    let (inline, memory) = (InlineIo::new(), patterned_memory(1 << 20));
    let disk = Disk::from_file(memory_disk(SECTORS * 512)).expect("the file is a disk");
    let device = disk.into_device().expect("the disk is well-formed");
    let transport = MmioTransport::new(device, memory.clone(), inline.io_thread()).expect("the device is well-formed");
    let driver = MmioDriver::new(transport);
    let offers = Offers::direct(&memory, 0x1000, 1, |_| Vec::new());
    driver.bring_up(driver.offered(), &[offers.driver()]);
    assert!(inline.settle(8).is_some(), "the disk does not come to rest");
    (inline, driver)
}

fn read(register: u64, expected: u32) -> Box<dyn FnMut()> {
    let (inline, driver) = disk();
    Box::new(move || {
        let _lives = &inline;
        (0..MANY).for_each(|_| assert_eq!(driver.read(register), expected));
    })
}

fn read_config() -> Box<dyn FnMut()> {
    let (inline, driver) = disk();
    Box::new(move || {
        let _lives = &inline;
        for _ in 0..MANY {
            let mut bytes = [0; 8];
            driver.transport().read(mmio::CONFIG, &mut bytes);
            assert_eq!(bytes, SECTORS.to_le_bytes());
        }
    })
}

/// Writes 0. Where that is a doorbell, it is one that was rung already, but for the first.
fn write(register: u64) -> Box<dyn FnMut()> {
    let (inline, driver) = disk();
    Box::new(move || {
        let _lives = &inline;
        (0..MANY).for_each(|_| driver.write(register, 0));
    })
}
