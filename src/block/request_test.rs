//! From chains to requests, without any I/O.

use super::*;
use crate::memory::{GuestAddress, GuestMemory};
use crate::testing::{Buffer, DriverQueue, IoRig, RecordingInterrupt, patterned_memory};
use crate::virtio::Queue;

const BYTES: u64 = 0x10000;
const DATA: u64 = 0x20000;
const LIMITS: Limits = Limits { capacity: 100, block: 1, read_only: false, discard: true, write_zeroes: true };
const READ_ONLY: Limits = Limits { read_only: true, ..LIMITS };

struct Rig {
    memory: GuestMemory,
    driver: DriverQueue,
    queue: Queue,
    io: IoRig,
}

fn rig() -> Rig {
    let memory = patterned_memory(1 << 20);
    let driver = DriverQueue::new(&memory, GuestAddress(0x1000), 64);
    let queue = Queue::new(&driver.config(), &memory, 0, true, RecordingInterrupt::new()).unwrap();
    Rig { memory, driver, queue, io: IoRig::new() }
}

impl Rig {
    fn parse(&mut self, buffers: &[Buffer], limits: Limits) -> Result<Request, Refusal> {
        self.driver.offer(buffers);
        let chain = self.queue.pop(&mut self.io.turn()).unwrap().unwrap();
        let request = parse(&chain, limits);
        self.queue.complete(chain, 0);
        request
    }

    /// A header, `out` bytes behind it, `data` writable bytes and a status.
    fn request(&mut self, header: (u32, u64), out: &[u8], data: u32) -> Result<Request, Refusal> {
        self.limited(header, out, data, LIMITS)
    }

    fn limited(&mut self, header: (u32, u64), out: &[u8], data: u32, limits: Limits) -> Result<Request, Refusal> {
        let (kind, sector) = header;
        let bytes = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes(), out].concat();
        self.memory.write(GuestAddress(BYTES), &bytes).unwrap();
        self.parse(&[Buffer::readable(BYTES, bytes.len() as u32), Buffer::writable(DATA, data + 1)], limits)
    }
}

fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn ranges(list: &[ByteRange]) -> Ranges {
    let mut ranges = Ranges::default();
    list.iter().for_each(|range| ranges.push(*range));
    ranges
}

fn bytes(sector: u64, count: u64) -> ByteRange {
    ByteRange { at: sector * SECTOR, len: count * SECTOR }
}

#[test]
fn reads_and_writes_must_lie_inside_the_capacity() {
    let mut rig = rig();
    assert_eq!(rig.request((TYPE_IN, 0), &[], 1024), Ok(Request::Read(bytes(0, 2))));
    assert_eq!(rig.request((TYPE_IN, 98), &[], 1024), Ok(Request::Read(bytes(98, 2))));
    assert_eq!(rig.request((TYPE_OUT, 99), &[0; 512], 0), Ok(Request::Write(bytes(99, 1))));
    for sector in [99, 100, 101, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(rig.request((TYPE_IN, sector), &[], 1024), Err(IO_ERROR), "{sector}");
        assert_eq!(rig.request((TYPE_OUT, sector), &[0; 1024], 0), Err(IO_ERROR), "{sector}");
    }
}

#[test]
fn data_comes_in_whole_sectors() {
    let mut rig = rig();
    for len in [1, 511, 513, 1023] {
        assert_eq!(rig.request((TYPE_IN, 0), &[], len), Err(IO_ERROR));
        assert_eq!(rig.request((TYPE_OUT, 0), &vec![0; len as usize], 0), Err(IO_ERROR));
    }
    assert_eq!(rig.request((TYPE_IN, 0), &[], 0), Ok(Request::Read(bytes(0, 0))));
}

#[test]
fn unknown_types_are_unsupported() {
    let mut rig = rig();
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(rig.request((kind, 0), &[], 512), Err(UNSUPPORTED), "{kind}");
    }
}

#[test]
fn a_read_only_disk_refuses_what_would_change_it() {
    let mut rig = rig();
    assert_eq!(rig.limited((TYPE_OUT, 0), &[0; 512], 0, READ_ONLY), Err(IO_ERROR));
    assert_eq!(rig.limited((TYPE_DISCARD, 0), &range(0, 1, 0), 0, READ_ONLY), Err(IO_ERROR));
    assert_eq!(rig.limited((TYPE_WRITE_ZEROES, 0), &range(0, 1, 0), 0, READ_ONLY), Err(IO_ERROR));
    assert_eq!(rig.limited((TYPE_IN, 0), &[], 512, READ_ONLY), Ok(Request::Read(bytes(0, 1))));
    assert_eq!(rig.limited((TYPE_FLUSH, 0), &[], 0, READ_ONLY), Ok(Request::Flush));
}

#[test]
fn a_chain_without_a_status_byte_or_a_whole_header_is_refused() {
    let mut rig = rig();
    assert_eq!(rig.parse(&[Buffer::readable(BYTES, 16)], LIMITS), Err(Refusal::NoStatus));
    assert_eq!(rig.parse(&[Buffer::readable(BYTES, 15), Buffer::writable(DATA, 1)], LIMITS), Err(IO_ERROR));
    assert_eq!(rig.parse(&[Buffer::writable(DATA, 600)], LIMITS), Err(IO_ERROR));
}

#[test]
fn bytes_may_be_spread_over_descriptors_in_any_way() {
    let mut rig = rig();
    rig.memory.write(GuestAddress(BYTES), &[0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut buffers: Vec<_> = (0..16).map(|index| Buffer::readable(BYTES + index, 1)).collect();
    buffers.extend([Buffer::writable(DATA, 100), Buffer::writable(DATA + 100, 412 + 512 + 1)]);
    assert_eq!(rig.parse(&buffers, LIMITS), Ok(Request::Read(bytes(7, 2))));
}

#[test]
fn the_serial_number_is_cut_to_the_buffer() {
    let mut rig = rig();
    for (data, expected) in [(20, 20), (100, 20), (19, 19), (0, 0)] {
        assert_eq!(rig.request((TYPE_GET_ID, 0), &[], data), Ok(Request::Serial(expected)));
    }
}

#[test]
fn discards_are_checked_range_by_range() {
    let mut rig = rig();
    let two = [range(1, 2, 0), range(99, 1, 0)].concat();
    assert_eq!(
        rig.request((TYPE_DISCARD, 0), &two, 0),
        Ok(Request::Discard(Box::new(ranges(&[bytes(1, 2), bytes(99, 1)]))))
    );
    let bad = [
        vec![],
        vec![0; 15],
        vec![0; 17],
        range(0, 1, 0).repeat(33),
        [range(0, 1, 0), range(99, 2, 0)].concat(),
        range(u64::MAX, 1, 0),
        range(1 << 55, 1, 0),
        range(0, u32::MAX, 0),
    ];
    for out in bad {
        assert_eq!(rig.request((TYPE_DISCARD, 0), &out, 0), Err(IO_ERROR), "{out:?}");
    }
    for flags in [1, 2, 3, 1 << 31] {
        assert_eq!(rig.request((TYPE_DISCARD, 0), &range(0, 1, flags), 0), Err(UNSUPPORTED));
    }
}

#[test]
fn limits_hold_even_where_the_capacity_would_do() {
    let mut rig = rig();
    let large = Limits { capacity: 1 << 40, ..LIMITS };
    let mut ask = |kind, count| rig.limited((kind, 0), &range(0, count, 0), 0, large);
    assert!(ask(TYPE_DISCARD, MAX_DISCARD_SECTORS).is_ok());
    assert_eq!(ask(TYPE_DISCARD, MAX_DISCARD_SECTORS + 1), Err(IO_ERROR));
    assert!(ask(TYPE_WRITE_ZEROES, MAX_ZEROES_SECTORS).is_ok());
    assert_eq!(ask(TYPE_WRITE_ZEROES, MAX_ZEROES_SECTORS + 1), Err(IO_ERROR));
}

#[test]
fn zeroes_may_unmap_and_nothing_else() {
    let mut rig = rig();
    for (flags, unmap) in [(0, false), (1, true)] {
        let expected = Request::WriteZeroes { range: bytes(5, 3), unmap };
        assert_eq!(rig.request((TYPE_WRITE_ZEROES, 0), &range(5, 3, flags), 0), Ok(expected));
    }
    assert_eq!(rig.request((TYPE_WRITE_ZEROES, 0), &range(5, 3, 2), 0), Err(UNSUPPORTED));
    assert_eq!(rig.request((TYPE_WRITE_ZEROES, 0), &range(99, 2, 0), 0), Err(IO_ERROR));
    assert_eq!(rig.request((TYPE_WRITE_ZEROES, 0), &range(5, 3, 0).repeat(2), 0), Err(IO_ERROR));
}

#[test]
fn a_disk_with_larger_blocks_refuses_what_is_not_aligned_to_them() {
    let mut rig = rig();
    let limits = Limits { block: 8, ..LIMITS };
    assert_eq!(rig.limited((TYPE_IN, 8), &[], 4096, limits), Ok(Request::Read(bytes(8, 8))));
    assert_eq!(rig.limited((TYPE_IN, 8), &[], 512, limits), Err(IO_ERROR));
    assert_eq!(rig.limited((TYPE_IN, 7), &[], 4096, limits), Err(IO_ERROR));
    assert_eq!(rig.limited((TYPE_WRITE_ZEROES, 0), &range(0, 7, 0), 0, limits), Err(IO_ERROR));
}
