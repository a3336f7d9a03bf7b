//! Requests to a disk that must be refused, or that meet a host that refuses.

use super::{After, Case, again_and_again, duration_us, expect, on_disk};
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::block::{
    Answer, Block, DISCARD, FEATURE_FLUSH, FLUSH, GET_ID, IN, IO_ERROR, MODERN, OK, OUT, SECTOR, UNSUPPORTED,
    WRITE_ZEROES, header, status,
};
use crate::body::virtio::device::feature;
use crate::body::virtio::ring::{readable, writable};

pub const CASES: &[Case] = &[
    ("a_request_of_an_unknown_type_is_unsupported", |cmdline| on_disk(cmdline, MODERN, unknown_types)),
    ("a_request_past_the_end_of_the_disk_is_refused", |cmdline| on_disk(cmdline, MODERN, past_the_end)),
    ("a_request_of_half_a_sector_is_refused", |cmdline| on_disk(cmdline, MODERN, half_sectors)),
    ("a_read_only_disk_is_not_written_whatever_was_agreed_on", |cmdline| {
        on_disk(cmdline, feature::VERSION_1, read_only)
    }),
    ("ranges_to_discard_or_zero_that_overflow_are_refused", |cmdline| on_disk(cmdline, MODERN, bad_ranges)),
    ("a_storm_of_flushes_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, MODERN | FEATURE_FLUSH, |block| flushes(block, us));
    }),
    ("a_short_buffer_for_the_serial_number_is_not_overrun", |cmdline| on_disk(cmdline, MODERN, serial_number)),
    ("an_image_format_in_sector_0_leaves_the_disk_raw", |cmdline| {
        let run = cmdline.number("run").unwrap_or(1) as usize;
        on_disk(cmdline, MODERN, |block| magic(block, run));
    }),
    ("a_disk_that_is_cut_short_fails_its_requests_and_serves_the_rest", |cmdline| on_disk(cmdline, MODERN, cut_short)),
    ("a_full_host_fails_writes_and_serves_reads", |cmdline| on_disk(cmdline, MODERN | FEATURE_FLUSH, no_space)),
    ("a_write_without_flush_is_stable_and_holds_up_nobody", |cmdline| on_disk(cmdline, MODERN, write_through)),
];

const DATA: u64 = memory::DATA;

fn unknown_types(block: &mut Block) -> After {
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 25, 0x100, 0x8000_0000, u32::MAX] {
        let answer = block.request(kind, 0, &[writable(DATA, 512)]);
        report::check(
            answer.is_some_and(|answer| answer.status == UNSUPPORTED),
            format_args!("type {kind} is supported"),
        );
        report::check(
            answer.is_some_and(|answer| answer.written == 0),
            format_args!("type {kind}: data are claimed that were not written"),
        );
    }
    report::line(format_args!("case: types from 2 to 4,294,967,295"));
    After::Serves
}

fn past_the_end(block: &mut Block) -> After {
    let end = block.sectors;
    memory::fill(DATA, 4096, 0x77);
    for (sector, sectors) in [
        (end, 1),
        (end - 1, 2),
        (end - 7, 8),
        (u64::MAX, 1),
        (u64::MAX - 1, 8),
        (u64::MAX / SECTOR, 1),
        (u64::MAX / SECTOR + 1, 1),
        (1 << 54, 1),
        (1 << 55, 8),
        (1 << 63, 1),
    ] {
        let len = sectors * SECTOR as u32;
        expect("a read past the end", block.request(IN, sector, &[writable(DATA, len)]), IO_ERROR, 0);
        expect("a write past the end", block.request(OUT, sector, &[readable(DATA, len)]), IO_ERROR, 1);
    }
    report::check(memory::all_are(DATA, 4096, 0x77), format_args!("a read that failed wrote"));
    report::check(block.device.config::<u64>(0) == end, format_args!("the disk has grown"));
    report::ask("same size");
    report::line(format_args!("case: sectors from the end up to the last that 64 bits can name"));
    After::Serves
}

fn half_sectors(block: &mut Block) -> After {
    for len in [1, 511, 513, 1023, 4095] {
        expect("a read of half a sector", block.request(IN, 0, &[writable(DATA, len)]), IO_ERROR, 0);
        expect("a write of half a sector", block.request(OUT, 0, &[readable(DATA, len)]), IO_ERROR, 1);
    }
    report::line(format_args!("case: reads and writes of 1 to 4095 bytes"));
    After::Serves
}

fn read_only(block: &mut Block) -> After {
    memory::fill(DATA, 512, 0x77);
    expect("a write", block.request(OUT, 0, &[readable(DATA, 512)]), IO_ERROR, 1);
    range(0, 0, 8, 0);
    for kind in [DISCARD, WRITE_ZEROES] {
        let answer = block.request(kind, 0, &[readable(DATA, 16)]);
        let refused = answer.is_some_and(|Answer { status, written }| status != OK && written == 1);
        report::check(refused, format_args!("type {kind} is not refused"));
    }
    report::ask("untouched");
    report::line(format_args!("case: a write, a discard and zeros, without having agreed on read-only"));
    After::Serves
}

/// Puts a range for discard or zeros into the data.
fn range(slot: u64, sector: u64, sectors: u32, flags: u32) {
    let at = DATA + slot * 16;
    memory::write(at, sector);
    memory::write(at + 8, sectors);
    memory::write(at + 12, flags);
}

fn bad_ranges(block: &mut Block) -> After {
    let end = block.sectors;
    let bad = [
        (end, 1, 0),
        (end - 1, 2, 0),
        (u64::MAX, 1, 0),
        (u64::MAX, u32::MAX, 0),
        (u64::MAX / SECTOR, 8, 0),
        (1 << 55, 8, 0),
        (0, u32::MAX, 0),
        (0, 8, 2),
        (0, 8, u32::MAX),
    ];
    for kind in [DISCARD, WRITE_ZEROES] {
        for (sector, sectors, flags) in bad {
            range(0, sector, sectors, flags);
            refused(block, kind, 16, format_args!("sectors {sector} and {sectors} more, flags {flags:#x}"));
        }
        range(0, 0, 8, 0);
        for len in [1, 15, 17, 16 * 1024 + 16, 0x10_0000] {
            refused(block, kind, len, format_args!("ranges of {len} bytes"));
        }
    }
    report::line(format_args!("case: ranges past the end and past 64 bits, of odd lengths, with unknown flags"));
    After::Serves
}

fn refused(block: &mut Block, kind: u32, len: u32, what: core::fmt::Arguments<'_>) {
    let answer = block.request(kind, 0, &[readable(DATA, len)]);
    let refused = answer.is_some_and(|Answer { status, written }| status != OK && written == 1);
    report::check(refused, format_args!("type {kind}, {what}: not refused, or not as it should be"));
}

fn flushes(block: &mut Block, us: u64) -> After {
    let size = block.ring.size;
    let mut done = 0u64;
    for slot in 0..size / 2 {
        block.ring.chain(slot * 2, &[header(slot, FLUSH, 0), status(slot)]);
    }
    again_and_again(us, || {
        while block.ring.in_flight() < size / 2 {
            let slot = block.ring.avail_index() % (size / 2);
            block.ring.offer(slot * 2);
        }
        block.kick();
        while block.ring.take_used().is_some() {
            done += 1;
        }
    });
    while block.ring.in_flight() > 0 && block.ring.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::line(format_args!("case: {done} flushes, {} at a time", size / 2));
    After::Serves
}

fn serial_number(block: &mut Block) -> After {
    for len in [1, 5, 19, 20, 21, 512] {
        memory::fill(DATA, 1024, 0x77);
        // What is claimed as written has no gap, so the status counts if it stands right behind the number.
        let written = if len > 20 { 20 } else { len + 1 };
        expect("the serial number", block.request(GET_ID, 0, &[writable(DATA, len)]), OK, written);
        report::check(
            memory::all_are(DATA + u64::from(len.min(20)), 512, 0x77),
            format_args!("{len} bytes are overrun"),
        );
    }
    expect("the serial number nowhere", block.request(GET_ID, 0, &[]), OK, 1);
    report::line(format_args!("case: room for 0 to 512 bytes of it"));
    After::Serves
}

/// The first bytes of images: of QCOW2 with a backing file, VHDX, VMDK, VDI, LUKS and QED.
const MAGICS: [&[u8]; 6] = [
    b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\x68\0\0\0\x0b\0\0\0\x10\0\0\0\0\0\x10\0\0",
    b"vhdxfile",
    b"KDMV\x01\0\0\0",
    b"<<< Oracle VM VirtualBox Disk Image >>>\n",
    b"LUKS\xba\xbe\0\x02",
    b"QED\0",
];
const BACKING_FILE: &[u8] = b"/etc/passwd";

fn magic(block: &mut Block, run: usize) -> After {
    let same = |block: &mut Block, magic: &[u8]| {
        memory::fill(DATA, 512, 0);
        expect("a read of sector 0", block.request(IN, 0, &[writable(DATA, 512)]), OK, 513);
        magic.iter().enumerate().all(|(at, byte)| memory::read::<u8>(DATA + at as u64) == *byte)
    };
    if let Some(last) = run.checked_sub(2).and_then(|last| MAGICS.get(last)) {
        report::check(same(block, last), format_args!("the disk is not raw any more"));
    }
    let Some(next) = MAGICS.get(run - 1) else {
        report::line(format_args!("case: looked at the last of the magics"));
        return After::Serves;
    };
    memory::fill(DATA, 512, 0);
    memory::copy_in(DATA, next);
    memory::copy_in(DATA + 0x68, BACKING_FILE);
    expect("a write of sector 0", block.request(OUT, 0, &[readable(DATA, 512)]), OK, 1);
    report::check(same(block, next), format_args!("what was written is not there"));
    report::ask("same size");
    report::line(format_args!("case: wrote magic {run}"));
    After::Serves
}

fn cut_short(block: &mut Block) -> After {
    let middle = block.sectors / 2;
    memory::fill(DATA, 8192, 0x77);
    report::ask("cut in half");
    expect("a read behind the end", block.request(IN, middle + 8, &[writable(DATA, 4096)]), IO_ERROR, 0);
    expect("a read across the end", block.request(IN, middle - 8, &[writable(DATA, 8192)]), IO_ERROR, 0);
    expect("a read before the end", block.request(IN, middle - 8, &[writable(DATA, 4096)]), OK, 4097);
    report::line(format_args!("case: reads behind, across and before the end that the file has now"));
    After::Serves
}

fn no_space(block: &mut Block) -> After {
    const LEN: u32 = 0x1_0000;
    let mut failed = 0;
    memory::fill(DATA, LEN.into(), 0x42);
    expect("the first write", block.request(OUT, 0, &[readable(DATA, LEN)]), OK, 1);
    expect("a flush", block.request(FLUSH, 0, &[]), OK, 1);
    memory::fill(DATA, LEN.into(), 0x43);
    for piece in 1..block.sectors / (u64::from(LEN) / SECTOR) {
        let answer = block.request(OUT, piece * u64::from(LEN) / SECTOR, &[readable(DATA, LEN)]);
        match answer {
            Some(Answer { status: OK, written: 1 }) => {}
            other => {
                failed += 1;
                expect("a write to a full host", other, IO_ERROR, 1);
            }
        }
    }
    report::check(failed > 0, format_args!("the host had room for everything"));
    expect("a read of a full host", block.request(IN, 0, &[writable(DATA, LEN)]), OK, LEN + 1);
    report::check(memory::all_are(DATA, LEN.into(), 0x42), format_args!("what was flushed is not there"));
    report::line(format_args!("case: {failed} writes failed"));
    After::Serves
}

/// A batch of writes by a driver that does not flush.
fn write_through(block: &mut Block) -> After {
    const LEN: u32 = 0x1_0000;
    const BATCH: u16 = 32;
    for slot in 0..BATCH {
        let sector = u64::from(slot) * u64::from(LEN) / SECTOR;
        block.ring.chain(slot * 3, &[header(slot, OUT, sector), readable(DATA, LEN), status(slot)]);
    }
    (0..BATCH).for_each(|slot| block.ring.offer(slot * 3));
    block.kick();
    let mut done = 0;
    while done < BATCH && block.ring.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::check(done == BATCH, format_args!("{done} of {BATCH} writes are done"));
    report::line(format_args!("case: {BATCH} writes of {LEN} bytes, each to be stable by itself"));
    After::Serves
}
