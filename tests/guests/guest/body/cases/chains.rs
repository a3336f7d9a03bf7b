//! Chains that break the rules. Each is completed once, and the next request is served.

use super::{After, Case, again_and_again, duration_us, on_disk};
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::block::{Block, IN, MODERN, header, status, status_of};
use crate::body::virtio::ring::{
    DESCRIPTOR, INDIRECT, MAX_SIZE, NEXT, Used, WRITE, readable, writable, write_descriptor, write_table,
};

pub const CASES: &[Case] = &[
    ("a_chain_that_is_a_circle_is_given_back", |cmdline| on_disk(cmdline, MODERN, circles)),
    ("a_chain_longer_than_the_queue_is_given_back", |cmdline| on_disk(cmdline, MODERN, too_long)),
    ("a_chain_that_leaves_its_table_is_given_back", |cmdline| on_disk(cmdline, MODERN, out_of_range)),
    ("a_table_inside_a_table_is_given_back", |cmdline| on_disk(cmdline, MODERN, nested)),
    ("a_table_of_an_odd_length_is_given_back", |cmdline| on_disk(cmdline, MODERN, odd_tables)),
    ("a_table_outside_ram_is_given_back", |cmdline| on_disk(cmdline, MODERN, unmapped_tables)),
    ("a_buffer_without_a_length_is_given_back", |cmdline| on_disk(cmdline, MODERN, no_length)),
    ("a_buffer_outside_ram_is_given_back", |cmdline| on_disk(cmdline, MODERN, unmapped_buffers)),
    ("a_chain_of_a_terabyte_is_given_back", |cmdline| on_disk(cmdline, MODERN, a_terabyte)),
    ("a_request_in_the_wrong_order_is_given_back", |cmdline| on_disk(cmdline, MODERN, wrong_order)),
    ("a_stream_of_bad_chains_holds_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_disk(cmdline, MODERN, |block| stream(block, us));
    }),
];

/// Offers what stands at `head`; the device must complete it, and may have written its status at most.
fn refuse(block: &mut Block, head: u16, what: core::fmt::Arguments<'_>) {
    let before = block.ring.used_index();
    status(0);
    block.ring.offer(head);
    block.kick();
    match block.ring.wait_used(1_000_000) {
        None => report::fail(format_args!("{what}: not completed")),
        Some(Used { id, written }) => report::check(
            id == u32::from(head) && written <= 1 && status_of(0) != 0,
            format_args!("{what}: completed as {id}, {written} bytes written, status {}", status_of(0)),
        ),
    }
    let completed = block.ring.used_index().wrapping_sub(before);
    report::check(completed <= 1, format_args!("{what}: completed {completed} times"));
}

/// A descriptor by its fields: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

fn describe(block: &Block, index: u16, (address, len, flags, next): Descriptor) {
    block.ring.describe(index, address, len, flags, next);
}

/// The header of a read, as a descriptor that goes on at `next`.
fn head(next: u16) -> Descriptor {
    status(0);
    (header(0, IN, 0).address, 16, NEXT, next)
}

fn circles(block: &mut Block) -> After {
    describe(block, 0, head(0));
    refuse(block, 0, format_args!("a descriptor that follows itself"));
    describe(block, 0, head(1));
    describe(block, 1, (memory::DATA, 512, NEXT | WRITE, 0));
    refuse(block, 0, format_args!("two descriptors that follow each other"));
    for index in 0..MAX_SIZE {
        describe(block, index, (memory::DATA, 512, NEXT | WRITE, (index + 1) % MAX_SIZE));
    }
    refuse(block, 7, format_args!("a circle of the whole queue"));
    for next in [0, 1] {
        write_descriptor(memory::TABLES, memory::HEADERS, 16, NEXT, 1);
        write_descriptor(memory::TABLES + DESCRIPTOR, memory::DATA, 512, NEXT | WRITE, next);
        describe(block, 0, (memory::TABLES, 2 * DESCRIPTOR as u32, INDIRECT, 0));
        refuse(block, 0, format_args!("a circle in a table, back to {next}"));
    }
    report::line(format_args!("case: circles of one, two and all descriptors, and in a table"));
    After::Serves
}

fn too_long(block: &mut Block) -> After {
    for len in [257u64, 1024, 0x8000, 0xffff, 0x1_0000] {
        for index in 0..len {
            let flags = if index + 1 == len { WRITE } else { NEXT | WRITE };
            write_descriptor(memory::TABLES + index * DESCRIPTOR, memory::DATA, 1, flags, (index + 1) as u16);
        }
        describe(block, 0, (memory::TABLES, (len * DESCRIPTOR) as u32, INDIRECT, 0));
        refuse(block, 0, format_args!("a table of {len} descriptors"));
    }
    report::line(format_args!("case: tables of 257 to 65,536 descriptors, all in one chain"));
    After::Serves
}

fn out_of_range(block: &mut Block) -> After {
    for next in [MAX_SIZE, MAX_SIZE + 1, 0x8000, u16::MAX] {
        describe(block, 0, head(next));
        refuse(block, 0, format_args!("a next of {next}"));
        write_table(memory::TABLES, &[header(0, IN, 0), status(0)]);
        write_descriptor(memory::TABLES, memory::HEADERS, 16, NEXT, next);
        describe(block, 0, (memory::TABLES, 32, INDIRECT, 0));
        refuse(block, 0, format_args!("a next of {next} in a table of two"));
    }
    report::line(format_args!("case: descriptors that go on behind the end of their table"));
    After::Serves
}

fn nested(block: &mut Block) -> After {
    let inner = memory::TABLES + 0x1000;
    write_table(inner, &[header(0, IN, 0), writable(memory::DATA, 512), status(0)]);
    write_descriptor(memory::TABLES, inner, 48, INDIRECT, 0);
    describe(block, 0, (memory::TABLES, 16, INDIRECT, 0));
    refuse(block, 0, format_args!("a table in a table"));
    write_descriptor(memory::TABLES, memory::TABLES, 16, INDIRECT, 0);
    refuse(block, 0, format_args!("a table in itself"));
    write_table(inner, &[writable(memory::DATA, 512), status(0)]);
    describe(block, 0, (inner, 32, INDIRECT | NEXT, 1));
    describe(block, 1, (memory::STATUSES, 1, WRITE, 0));
    refuse(block, 0, format_args!("a table and a next"));
    report::line(format_args!("case: tables in tables, in themselves, and with a next"));
    After::Serves
}

fn odd_tables(block: &mut Block) -> After {
    write_table(memory::TABLES, &[header(0, IN, 0), writable(memory::DATA, 512), status(0)]);
    for len in [0, 1, 15, 17, 47, 49, 0x10_0008, u32::MAX] {
        describe(block, 0, (memory::TABLES, len, INDIRECT, 0));
        refuse(block, 0, format_args!("a table of {len} bytes"));
    }
    report::line(format_args!("case: tables whose length is no multiple of 16"));
    After::Serves
}

fn unmapped_tables(block: &mut Block) -> After {
    for at in [memory::END, memory::END - 16, memory::HOLE, block.device.base, 1 << 40, u64::MAX - 15, u64::MAX - 47] {
        if at == memory::END - 16 {
            write_descriptor(at, memory::HEADERS, 16, NEXT, 1);
        }
        describe(block, 0, (at, 48, INDIRECT, 0));
        refuse(block, 0, format_args!("a table at {at:#x}"));
    }
    report::line(format_args!("case: tables that are not, or not wholly, in RAM"));
    After::Serves
}

fn no_length(block: &mut Block) -> After {
    let (header, status) = (header(0, IN, 0), status(0));
    let all = [header, writable(memory::DATA, 512), status];
    for empty in 0..3 {
        let mut chain = all;
        chain[empty].len = 0;
        block.ring.chain(0, &chain);
        refuse(block, 0, format_args!("no bytes in descriptor {empty}"));
    }
    block.ring.chain(0, &[writable(memory::DATA, 0)]);
    refuse(block, 0, format_args!("nothing at all"));
    report::line(format_args!("case: descriptors of zero bytes"));
    After::Serves
}

fn unmapped_buffers(block: &mut Block) -> After {
    let own = block.device.base;
    let places: [(u64, u32); 9] = [
        (memory::END, 512),
        (memory::END - 256, 512),
        (memory::HOLE, 512),
        (own, 512),
        (0xfee0_0000, 512),
        (u64::MAX - 255, 512),
        (u64::MAX - 511, 512),
        (memory::DATA, u32::MAX),
        (0, u32::MAX),
    ];
    for (address, len) in places {
        block.ring.chain(0, &[header(0, IN, 0), writable(address, len), status(0)]);
        refuse(block, 0, format_args!("data of {len:#x} bytes at {address:#x}"));
        block.ring.chain(0, &[readable(address, len), writable(memory::DATA, 512), status(0)]);
        refuse(block, 0, format_args!("a header at {address:#x}"));
    }
    report::line(format_args!("case: buffers that are not, or not wholly, in RAM, and ones that wrap"));
    After::Serves
}

fn a_terabyte(block: &mut Block) -> After {
    for len in [u32::MAX, 1 << 30, 0x1fe0_0000, (memory::END - memory::SHARED) as u32] {
        for index in 0..MAX_SIZE {
            let flags = if index + 1 == MAX_SIZE { WRITE } else { NEXT | WRITE };
            describe(block, index, (memory::SHARED, len, flags, index + 1));
        }
        describe(block, 0, head(1));
        refuse(block, 0, format_args!("255 descriptors of {len:#x} bytes"));
    }
    report::line(format_args!("case: 255 descriptors of up to 4 GiB each"));
    After::Serves
}

fn wrong_order(block: &mut Block) -> After {
    let (header, data, status) = (header(0, IN, 0), writable(memory::DATA, 512), status(0));
    block.ring.chain(0, &[data, header, status]);
    refuse(block, 0, format_args!("a header behind what the device writes"));
    block.ring.chain(0, &[writable(header.address, 16), data, status]);
    refuse(block, 0, format_args!("a header that the device may only write"));
    block.ring.chain(0, &[header, readable(memory::DATA, 512), readable(status.address, 1)]);
    refuse(block, 0, format_args!("a status that the device may only read"));
    block.ring.chain(0, &[header]);
    refuse(block, 0, format_args!("a header alone"));
    block.ring.chain(0, &[readable(header.address, 15), status]);
    refuse(block, 0, format_args!("a header of 15 bytes"));
    block.ring.chain(0, &[status]);
    refuse(block, 0, format_args!("a status alone"));
    report::line(format_args!("case: headers, data and status in the wrong order, and parts of them missing"));
    After::Serves
}

/// Bad chains as fast as the device takes them, half of them long circles.
fn stream(block: &mut Block, us: u64) -> After {
    for index in 0..MAX_SIZE {
        describe(block, index, (memory::DATA, 512, NEXT | WRITE, (index + 1) % MAX_SIZE));
    }
    let mut completed = 0u64;
    let rounds = again_and_again(us, || {
        while block.ring.in_flight() < MAX_SIZE {
            let next = block.ring.avail_index() % MAX_SIZE;
            block.ring.offer(next);
        }
        block.kick();
        while block.ring.take_used().is_some() {
            completed += 1;
        }
    });
    while block.ring.in_flight() > 0 && block.ring.wait_used(1_000_000).is_some() {
        completed += 1;
    }
    report::line(format_args!("case: {completed} circles of {MAX_SIZE} descriptors, rung for {rounds} times"));
    report::check(block.ring.in_flight() == 0, format_args!("{} were not completed", block.ring.in_flight()));
    After::Serves
}
