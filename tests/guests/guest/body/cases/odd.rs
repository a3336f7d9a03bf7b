//! Chains that no driver sends, although the device can make sense of them.

use super::{After, Case, expect, on_disk};
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::block::{
    Answer, Block, DISCARD, FLUSH, IN, IO_ERROR, MODERN, OK, OUT, WRITE_ZEROES, header, status, status_of,
};
use crate::body::virtio::device::feature;
use crate::body::virtio::ring::{INDIRECT, NEXT, WRITE, readable, writable, write_table};

pub const CASES: &[Case] = &[
    ("a_request_in_odd_pieces_is_served", |cmdline| on_disk(cmdline, MODERN, pieces)),
    ("flags_that_there_are_not_hurt_nobody", |cmdline| on_disk(cmdline, MODERN, flags)),
    ("a_table_that_was_not_agreed_on_hurts_nobody", |cmdline| on_disk(cmdline, feature::VERSION_1, not_agreed_on)),
    ("a_flush_that_carries_more_than_it_needs_is_served", |cmdline| on_disk(cmdline, MODERN, laden_flushes)),
    ("ranges_that_meet_each_other_and_the_end_are_served", |cmdline| on_disk(cmdline, MODERN, ranges)),
    ("requests_for_the_same_sectors_at_once_are_all_served", |cmdline| on_disk(cmdline, MODERN, same_sectors)),
];

const DATA: u64 = memory::DATA;
/// Behind the data.
const CHECK: u64 = memory::DATA + 0x1_0000;

/// Header, data and status byte, cut and joined at places where no driver does.
fn pieces(block: &mut Block) -> After {
    memory::fill(DATA, 1024, 0x3c);
    let (head, last) = (header(0, OUT, 16), status(0));
    let cut: [_; 6] = [
        readable(head.address, 1),
        readable(head.address + 1, 7),
        readable(head.address + 8, 8),
        readable(DATA, 511),
        readable(DATA + 511, 513),
        last,
    ];
    expect("a write in five pieces", block.send(&cut), OK, 1);
    header(0, IN, 16);
    // The header and the last byte of the status are where the others end: both may share a descriptor with data.
    memory::fill(CHECK, 1032, 0);
    let joined = [head, writable(CHECK, 3), writable(CHECK + 3, 1022)];
    block.send(&joined);
    let same = memory::all_are(CHECK, 1024, 0x3c) && memory::read::<u8>(CHECK + 1024) == OK;
    report::check(same, format_args!("a read whose status is the last byte of its data is not what was written"));
    memory::copy_in(CHECK, &[0; 16]);
    memory::write(CHECK, OUT);
    memory::write(CHECK + 8, 24u64);
    memory::fill(CHECK + 16, 512, 0x3d);
    status(0);
    expect("a write whose data follow its header", block.send(&[readable(CHECK, 528), last]), OK, 1);
    header(0, IN, 24);
    memory::fill(DATA, 512, 0);
    status(0);
    expect(
        "a read in single bytes of room",
        block.send(&[head, writable(DATA, 1), writable(DATA + 1, 511), last]),
        OK,
        513,
    );
    report::check(memory::all_are(DATA, 512, 0x3d), format_args!("what was written is not read"));
    // A table that goes on in the next page.
    let table = memory::TABLES + 0x1000 - 16;
    write_table(table, &[header(0, IN, 24), writable(DATA, 512), status(0)]);
    block.ring.describe(0, table, 48, INDIRECT, 0);
    block.ring.offer(0);
    block.kick();
    let read = block.ring.wait_used(1_000_000).is_some_and(|used| used.written == 513) && status_of(0) == OK;
    report::check(read, format_args!("a table across two pages is not served"));
    for sector in [0, block.sectors] {
        expect("a read of nothing", block.request(IN, sector, &[]), OK, 1);
        expect("a write of nothing", block.request(OUT, sector, &[]), OK, 1);
    }
    report::line(format_args!("case: headers, data, status bytes and tables cut and joined in any way"));
    After::Serves
}

fn flags(block: &mut Block) -> After {
    for odd in [8u16, 0x10, 0x40, 0x100, 0x8000, 0xfff8] {
        let (head, data, last) = (header(0, IN, 0), writable(DATA, 512), status(0));
        block.ring.describe(0, head.address, head.len, NEXT | odd, 1);
        block.ring.describe(1, data.address, data.len, NEXT | WRITE | odd, 2);
        block.ring.describe(2, last.address, last.len, WRITE | odd, 0);
        block.ring.offer(0);
        block.kick();
        report::check(block.ring.wait_used(1_000_000).is_some(), format_args!("flags {odd:#x}: not completed"));
        // A table that the device may also write is a table.
        write_table(memory::TABLES, &[header(0, IN, 0), data, status(0)]);
        block.ring.describe(0, memory::TABLES, 48, INDIRECT | WRITE | odd, 0);
        block.ring.offer(0);
        block.kick();
        report::check(block.ring.wait_used(1_000_000).is_some(), format_args!("a table with {odd:#x}: not completed"));
    }
    report::line(format_args!("case: flags of descriptors and of tables that the specification does not have"));
    After::Serves
}

fn not_agreed_on(block: &mut Block) -> After {
    write_table(memory::TABLES, &[header(0, FLUSH, 0), status(0)]);
    block.ring.describe(0, memory::TABLES, 32, INDIRECT, 0);
    block.ring.offer(0);
    block.kick();
    let answered = block.ring.wait_used(1_000_000).is_some();
    report::check(answered, format_args!("a table that was not agreed on is not completed"));
    report::line(format_args!("case: a table, without having agreed on tables; its status is {}", status_of(0)));
    After::Serves
}

/// A flush has no data and no sector; a driver that gives it some is not told that anything was written.
fn laden_flushes(block: &mut Block) -> After {
    memory::fill(DATA, 4096, 0x77);
    for (sector, data) in [
        (1, &[][..]),
        (u64::MAX, &[]),
        (0, &[readable(DATA, 512)]),
        (0, &[writable(DATA, 512)]),
        (7, &[readable(DATA, 1), writable(DATA, 4095)]),
    ] {
        let answer = block.request(FLUSH, sector, data);
        let served = answer.is_some_and(|Answer { status, .. }| status == OK);
        report::check(served, format_args!("a flush of sector {sector} with {} buffers is not served", data.len()));
    }
    // The field behind the type is a priority that nobody has.
    for priority in [1, 0x8000_0000, u32::MAX] {
        let head = header(0, FLUSH, 0);
        memory::write(head.address + 4, priority);
        expect("a flush with a priority", block.send(&[head, status(0)]), OK, 1);
    }
    report::check(memory::all_are(DATA, 4096, 0x77), format_args!("a flush wrote"));
    report::line(format_args!("case: flushes with sectors, data and priorities"));
    After::Serves
}

fn range(slot: u64, sector: u64, sectors: u32, flags: u32) {
    let at = CHECK + slot * 16;
    memory::write(at, sector);
    memory::write(at + 8, sectors);
    memory::write(at + 12, flags);
}

/// Ranges that lie over each other, are empty, or end with the disk: what lies beside them stays.
fn ranges(block: &mut Block) -> After {
    let end = block.sectors;
    memory::fill(DATA, 4096, 0x6b);
    expect("a write", block.request(OUT, end - 8, &[readable(DATA, 4096)]), OK, 1);
    expect("a write", block.request(OUT, 0, &[readable(DATA, 4096)]), OK, 1);
    for (slot, (sector, sectors)) in (0..).zip([(16, 32), (16, 32), (24, 8), (8, 16), (16, 0), (end, 0)]) {
        range(slot, sector, sectors, 0);
    }
    expect("a discard of ranges that overlap", block.request(DISCARD, 0, &[readable(CHECK, 96)]), OK, 1);
    for (sector, sectors, flags) in [(end - 4, 4, 0), (end - 4, 4, 1), (4, 0, 0), (end, 0, 0)] {
        range(0, sector, sectors, flags);
        expect("zeros up to the end", block.request(WRITE_ZEROES, 0, &[readable(CHECK, 16)]), OK, 1);
    }
    for (sector, sectors) in [(end - 4, 5), (end, 1), (end + 1, 0)] {
        range(0, sector, sectors, 0);
        expect("zeros past the end", block.request(WRITE_ZEROES, 0, &[readable(CHECK, 16)]), IO_ERROR, 1);
        expect("a discard past the end", block.request(DISCARD, 0, &[readable(CHECK, 16)]), IO_ERROR, 1);
    }
    let read = |block: &mut Block, sector| {
        memory::fill(DATA, 4096, 0);
        expect("a read", block.request(IN, sector, &[writable(DATA, 4096)]), OK, 4097);
    };
    read(block, 0);
    report::check(memory::all_are(DATA, 4096, 0x6b), format_args!("sectors before a range have changed"));
    read(block, end - 8);
    let whole = memory::all_are(DATA, 2048, 0x6b) && memory::all_are(DATA + 2048, 2048, 0);
    report::check(whole, format_args!("zeros are not where they were asked for"));
    report::check(block.device.config::<u64>(0) == end, format_args!("the disk has another size"));
    report::line(format_args!("case: ranges over each other, without a sector, and up to the end"));
    After::Serves
}

/// Writes, reads, zeros and discards of the same sectors, all offered at once.
fn same_sectors(block: &mut Block) -> After {
    const BATCH: u16 = 64;
    range(0, 32, 8, 0);
    for slot in 0..BATCH {
        let at = DATA + 0x2_0000 + u64::from(slot) * 4096;
        let (kind, data) = match slot % 4 {
            0 => (OUT, readable(at, 4096)),
            1 => (IN, writable(at, 4096)),
            2 => (DISCARD, readable(CHECK, 16)),
            _ => (WRITE_ZEROES, readable(CHECK, 16)),
        };
        block.ring.chain(slot * 3, &[header(slot, kind, 32), data, status(slot)]);
        block.ring.offer(slot * 3);
    }
    block.kick();
    let mut done = 0;
    while done < BATCH && block.ring.wait_used(5_000_000).is_some() {
        done += 1;
    }
    let well = (0..BATCH).filter(|slot| status_of(*slot) == OK).count();
    report::check(well == usize::from(BATCH), format_args!("{done} of {BATCH} requests are done, {well} of them well"));
    report::line(format_args!("case: {BATCH} requests for the same eight sectors at once"));
    After::Serves
}
