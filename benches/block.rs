//! A disk on a file in memory, from the doorbell to the status. What the kernel does for a request is not counted.

use std::os::unix::fs::FileExt;

use vmcell::testing::{Buffer, InlineIo, MmioDriver, memory_disk, patterned_memory};
use vmcell::virtio::MmioTransport;
use vmcell::{Disk, GuestAddress, GuestMemory, Limits, RateLimit};

use crate::offer::Offers;
use crate::piece::Piece;

const ROOM: &str = "block";
const MEMORY: u64 = 1 << 20;
const RINGS: u64 = 0x1000;
const HEADERS: u64 = 0x8000;
const STATUSES: u64 = 0xc000;
const DATA: u64 = 0x4_0000;
const LEN: u32 = 4096;
const BATCH: u16 = 32;

const READ: u32 = 0;
const WRITE: u32 = 1;
/// Has no meaning (5.2.6), so that it is parsed and answered, and no more.
const UNKNOWN: u32 = 99;

const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

pub const PIECES: &[Piece] = &[
    Piece { room: ROOM, name: "read-4k", operations: 1, make: || requests(1, READ, OK) },
    Piece { room: ROOM, name: "read-4k-of-32", operations: BATCH as u64, make: || requests(BATCH, READ, OK) },
    Piece { room: ROOM, name: "read-4k-limited", operations: 1, make: || requests_limited(1) },
    Piece { room: ROOM, name: "read-4k-of-32-limited", operations: BATCH as u64, make: || requests_limited(BATCH) },
    Piece { room: ROOM, name: "write-4k", operations: 1, make: || requests(1, WRITE, OK) },
    Piece { room: ROOM, name: "write-4k-of-32", operations: BATCH as u64, make: || requests(BATCH, WRITE, OK) },
    Piece { room: ROOM, name: "parse", operations: BATCH as u64, make: || requests(BATCH, UNKNOWN, UNSUPPORTED) },
];

/// So many requests of a kind at once, each of which is answered by `status`.
fn requests(count: u16, kind: u32, status: u8) -> Box<dyn FnMut()> {
    requests_of(count, kind, status, Limits::new())
}

/// Reads that count, and never wait.
fn requests_limited(count: u16) -> Box<dyn FnMut()> {
    let most = RateLimit::per_second(1 << 40);
    requests_of(count, READ, OK, Limits::new().operations(most).bytes(most))
}

fn requests_of(count: u16, kind: u32, status: u8, limits: Limits) -> Box<dyn FnMut()> {
    let memory = patterned_memory(MEMORY);
    let inline = InlineIo::new();
    let file = memory_disk(0);
    // With all of its pages, so that nothing has to wait for one.
    file.write_all_at(&vec![0; LEN as usize * usize::from(count)], 0).expect("the host provides the memory");
    let disk = Disk::from_file(file).expect("the file is a disk").limits(limits);
    let device = disk.into_device().expect("the disk is well-formed");
    let transport = MmioTransport::new(device, memory.clone(), inline.io_thread()).expect("the device is well-formed");
    let driver = MmioDriver::new(transport);
    let mut offers = Offers::direct(&memory, RINGS, count, |number| request(&memory, kind, number));
    driver.bring_up(driver.offered(), &[offers.driver()]);
    // The first of them finds out what the kernel can do without waiting, and may leave that to another thread.
    offers.again();
    driver.kick(0);
    driver.wait_until("the first requests", || {
        inline.round();
        offers.all_done()
    });
    let mut call = move || {
        offers.again();
        driver.kick(0);
        assert!(inline.settle(8).is_some(), "the disk does not come to rest");
    };
    call();
    for number in 0..u64::from(count) {
        let mut byte = [0xff];
        memory.read(GuestAddress(STATUSES + number), &mut byte).expect("it lies in the memory");
        assert_eq!(byte, [status]);
    }
    Box::new(call)
}

fn request(memory: &GuestMemory, kind: u32, number: u64) -> Vec<Buffer> {
    let header = HEADERS + number * 16;
    let sector = number * u64::from(LEN / 512);
    let bytes = [u64::from(kind).to_le_bytes(), sector.to_le_bytes()].concat();
    memory.write(GuestAddress(header), &bytes).expect("it lies in the memory");
    let data = DATA + number * u64::from(LEN);
    let data = if kind == WRITE { Buffer::readable(data, LEN) } else { Buffer::writable(data, LEN) };
    vec![Buffer::readable(header, 16), data, Buffer::writable(STATUSES + number, 1)]
}
