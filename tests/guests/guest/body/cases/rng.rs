//! Requests for random bytes that no driver sends.

use super::{Case, again_and_again, duration_us};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::memory;
use crate::body::report;
use crate::body::virtio::device::{Device, feature, reg};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, NEXT, Ring, WRITE, readable, writable, write_chain};

pub const CASES: &[Case] = &[
    ("a_source_of_random_bytes_gives_back_chains_that_break_the_rules", |cmdline| on_source(cmdline, chains)),
    ("requests_for_random_bytes_without_end_hold_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_source(cmdline, |source| storm(source, us));
    }),
];

/// virtio 1.2, section 5.4.
const DEVICE_ID: u32 = 4;
const FEATURES: u64 = feature::VERSION_1 | feature::INDIRECT;

struct Source {
    device: Device,
    ring: Ring,
}

impl Source {
    fn restart(&mut self) -> bool {
        let agreed = self.device.negotiate(FEATURES);
        self.device.write(reg::QUEUE_SEL, 0);
        self.ring = Ring::new(0, self.device.read(reg::QUEUE_NUM_MAX) as u16);
        let ready = agreed && self.device.set_queue(&self.ring);
        self.device.driver_ok();
        ready
    }

    /// Offers what stands at a head, alone; how many bytes were written, unless it was not completed.
    fn take(&mut self, head: u16) -> Option<u32> {
        self.ring.offer(head);
        self.device.kick(&self.ring);
        self.ring.wait_used(1_000_000).map(|used| used.written)
    }

    fn serves(&mut self) -> bool {
        memory::fill(memory::DATA, 128, 0);
        self.ring.chain(0, &[writable(memory::DATA, 64)]);
        self.take(0) == Some(64) && !memory::all_are(memory::DATA, 64, 0) && memory::all_are(memory::DATA + 64, 64, 0)
    }
}

fn on_source(cmdline: &Cmdline, case: impl FnOnce(&mut Source)) {
    let Some(device) = Device::find(cmdline, DEVICE_ID) else {
        report::ready();
        return report::fail(format_args!("there is no source of random bytes"));
    };
    let mut source = Source { device, ring: Ring::new(0, 1) };
    let warm = source.restart() && source.serves();
    report::ready();
    report::check(warm, format_args!("the source served no valid request before the case"));
    case(&mut source);
    if source.ring.in_flight() == 0 && !device.needs_reset() && source.serves() {
        return report::line(format_args!("served directly"));
    }
    let again = source.restart() && source.serves();
    report::check(again, format_args!("no valid request is served afterwards, not even after a reset"));
    report::line(format_args!("served after a reset"));
}

fn chains(source: &mut Source) {
    let own = source.device.base;
    let refuse = |source: &mut Source, what: &str| {
        let written = source.take(0);
        report::check(written == Some(0), format_args!("{what}: {written:?} bytes are written"));
    };
    for next in [0, source.ring.size, u16::MAX] {
        source.ring.describe(0, memory::DATA, 64, NEXT | WRITE, next);
        refuse(source, "a descriptor that leads back, or to none");
    }
    for (at, len) in
        [(memory::END, 64), (memory::END - 32, 64), (own, 64), (u64::MAX - 31, 64), (memory::DATA, u32::MAX)]
    {
        source.ring.describe(0, at, len, WRITE, 0);
        refuse(source, "a buffer in no RAM");
    }
    for (at, len) in [(memory::TABLES, 0), (memory::TABLES, 17), (memory::END, 16), (u64::MAX - 15, 16)] {
        source.ring.describe(0, at, len, INDIRECT, 0);
        refuse(source, "a table that is none");
    }
    write_chain(memory::TABLES, 0, [writable(memory::DATA, 64)].into_iter());
    memory::write(memory::TABLES + 12, NEXT | WRITE);
    for next in [0u16, 1, u16::MAX] {
        memory::write(memory::TABLES + 14, next);
        source.ring.describe(0, memory::TABLES, DESCRIPTOR as u32, INDIRECT, 0);
        refuse(source, "a table that leads back, or out of itself");
    }
    source.ring.chain(0, &[readable(memory::DATA, 64)]);
    refuse(source, "a buffer that may only be read");
    source.ring.describe(0, memory::DATA, 0, WRITE, 0);
    refuse(source, "a buffer without a length");
    report::line(format_args!("case: circles, tables and buffers that are none, or give no room"));
}

/// As much as there is room for, in pieces of a byte and as a whole, as fast as it comes.
fn storm(source: &mut Source, us: u64) {
    write_chain(memory::TABLES, 0, (0..256).map(|n| writable(memory::DATA + n, 1)));
    let size = source.ring.size;
    for head in 0..size {
        match head % 2 {
            0 => source.ring.chain(head, &[writable(memory::SHARED, 0x80_0000)]),
            _ => source.ring.describe(head, memory::TABLES, 256 * DESCRIPTOR as u32, INDIRECT, 0),
        }
    }
    let mut done = 0u64;
    again_and_again(us, || {
        while source.ring.in_flight() < size {
            let head = source.ring.avail_index() % size;
            source.ring.offer(head);
        }
        source.device.kick(&source.ring);
        while source.ring.take_used().is_some() {
            done += 1;
        }
    });
    while source.ring.in_flight() > 0 && source.ring.wait_used(5_000_000).is_some() {
        done += 1;
    }
    report::check(done > 0, format_args!("no request was served"));
    report::line(format_args!("case: {done} requests for up to 8 MiB"));
}
