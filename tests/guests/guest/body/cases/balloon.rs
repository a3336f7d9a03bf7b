//! Memory given back as no driver does.

use super::{Case, again_and_again, duration_us};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory};
use crate::body::report;
use crate::body::virtio::block::{Block, IN, MODERN, header, status};
use crate::body::virtio::device::{Device, feature, reg};
use crate::body::virtio::ring::{DESCRIPTOR, INDIRECT, NEXT, Ring, WRITE, readable, writable, write_chain};

pub const CASES: &[Case] = &[
    ("a_balloon_gives_back_chains_that_break_the_rules", |cmdline| on_balloon(cmdline, chains)),
    ("lists_of_pages_without_end_hold_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_balloon(cmdline, |balloon| lists(balloon, us));
    }),
    ("statistics_without_end_hold_up_nobody", |cmdline| {
        let us = duration_us(cmdline);
        on_balloon(cmdline, |balloon| statistics(balloon, us));
    }),
    ("a_guest_that_gives_the_rings_away_hurts_nobody", |cmdline| {
        let (us, disk) = (duration_us(cmdline), Block::start(cmdline, MODERN));
        on_balloon(cmdline, |balloon| rings(balloon, disk, us));
    }),
    ("a_guest_that_gives_all_its_memory_away_ends_alone", |cmdline| on_balloon(cmdline, everything)),
];

/// virtio 1.2, section 5.5.
const DEVICE_ID: u32 = 5;
/// It tells before it uses pages, has statistics, may deflate, and reports pages.
const FEATURES: u64 = feature::VERSION_1 | feature::INDIRECT | 0b10_0111;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const REPORTS: usize = 3;
/// The disk has the first place.
const FIRST_RING: u32 = 8;
const PAGE: u64 = 4096;
/// Where pages lie that nobody needs.
const SPARE: u64 = memory::SHARED;

struct Balloon {
    device: Device,
    rings: [Ring; 4],
}

impl Balloon {
    fn restart(&mut self) -> bool {
        let agreed = self.device.negotiate(FEATURES);
        let mut ready = agreed;
        for (queue, ring) in (0u32..).zip(&mut self.rings) {
            self.device.write(reg::QUEUE_SEL, queue);
            *ring = Ring::new(FIRST_RING + queue, self.device.read(reg::QUEUE_NUM_MAX) as u16);
            ring.queue = queue;
            ready &= self.device.set_queue(ring);
        }
        self.device.driver_ok();
        ready
    }

    /// Offers what stands at the first place of a queue; how many bytes were written, unless it was not completed.
    fn take(&mut self, queue: usize) -> Option<u32> {
        self.rings[queue].offer(0);
        self.device.kick(&self.rings[queue]);
        self.rings[queue].wait_used(5_000_000).map(|used| used.written)
    }

    /// Sends numbers of pages.
    fn send(&mut self, queue: usize, pages: &[u32]) -> Option<u32> {
        let count = list(pages.iter().map(|page| u64::from(*page)));
        self.rings[queue].chain(0, &[readable(memory::DATA, 4 * count)]);
        self.take(queue)
    }

    fn serves(&mut self) -> bool {
        let page = (SPARE / PAGE) as u32;
        memory::fill(SPARE, 3 * PAGE, 7);
        let out = self.send(DEFLATE, &[page + 1]) == Some(0);
        let done = self.send(INFLATE, &[page + 1]) == Some(0);
        let gone = memory::all_are(SPARE + PAGE, PAGE, 0);
        out && done && gone && memory::all_are(SPARE, PAGE, 7) && memory::all_are(SPARE + 2 * PAGE, PAGE, 7)
    }

    fn in_flight(&self) -> bool {
        [INFLATE, DEFLATE, REPORTS].iter().any(|queue| self.rings[*queue].in_flight() > 0)
    }
}

fn on_balloon(cmdline: &Cmdline, case: impl FnOnce(&mut Balloon)) {
    let Some(device) = Device::find(cmdline, DEVICE_ID) else {
        report::ready();
        return report::fail(format_args!("there is no balloon"));
    };
    let mut balloon = Balloon { device, rings: [0, 1, 2, 3].map(|queue| Ring::attach(FIRST_RING + queue, 1)) };
    let warm = balloon.restart() && balloon.serves();
    report::ready();
    report::check(warm, format_args!("the balloon served no valid request before the case"));
    case(&mut balloon);
    if !balloon.in_flight() && !device.needs_reset() && balloon.serves() {
        return report::line(format_args!("served directly"));
    }
    let again = balloon.restart() && balloon.serves();
    report::check(again, format_args!("no valid request is served afterwards, not even after a reset"));
    report::line(format_args!("served after a reset"));
}

fn chains(balloon: &mut Balloon) {
    let own = balloon.device.base;
    for queue in [INFLATE, DEFLATE, STATISTICS, REPORTS] {
        let refuse = |balloon: &mut Balloon, what: &str| {
            let written = balloon.take(queue);
            report::check(written == Some(0), format_args!("queue {queue}: {what}: {written:?} bytes are written"));
        };
        let size = balloon.rings[queue].size;
        for next in [0, size, u16::MAX] {
            balloon.rings[queue].describe(0, memory::DATA, 64, NEXT, next);
            refuse(balloon, "a descriptor that leads back, or to none");
        }
        for (at, len) in
            [(memory::END, 64), (memory::END - 32, 64), (own, 64), (u64::MAX - 31, 64), (memory::DATA, u32::MAX)]
        {
            for flags in [0, WRITE] {
                balloon.rings[queue].describe(0, at, len, flags, 0);
                refuse(balloon, "a buffer in no RAM");
            }
        }
        for (at, len) in [(memory::TABLES, 0), (memory::TABLES, 17), (memory::END, 16), (u64::MAX - 15, 16)] {
            balloon.rings[queue].describe(0, at, len, INDIRECT, 0);
            refuse(balloon, "a table that is none");
        }
        balloon.rings[queue].describe(0, memory::DATA, 0, 0, 0);
        refuse(balloon, "a buffer without a length");
    }
    // The last statistics that say nothing are given back; what may only be written is no list, and what may only be read no report.
    for (queue, segment) in [
        (STATISTICS, writable(memory::DATA, 64)),
        (INFLATE, writable(memory::DATA, 64)),
        (REPORTS, readable(SPARE, 0x4000)),
        (REPORTS, writable(SPARE + 1, 0x1ffe)),
        (INFLATE, readable(memory::DATA, 3)),
    ] {
        memory::fill(SPARE, 0x4000, 7);
        balloon.rings[queue].chain(0, &[segment]);
        let written = balloon.take(queue);
        report::check(written == Some(0), format_args!("queue {queue}: {written:?} bytes are written"));
        report::check(
            memory::all_are(SPARE, 0x4000, 7),
            format_args!("queue {queue}: a page is gone that was not named"),
        );
    }
    let end = (memory::END / PAGE) as u32;
    let bad = [end, end + 1, u32::MAX, 1 << 20, (memory::HOLE / PAGE) as u32, (own / PAGE) as u32, 0xfee00];
    for queue in [INFLATE, DEFLATE, DEFLATE, INFLATE] {
        report::check(balloon.send(queue, &bad) == Some(0), format_args!("pages that are no RAM"));
    }
    let page = (SPARE / PAGE) as u32;
    memory::fill(SPARE, PAGE, 7);
    balloon.send(INFLATE, &[page, page, page]);
    memory::fill(SPARE, PAGE, 7);
    balloon.send(INFLATE, &[page; 64]);
    report::check(memory::all_are(SPARE, PAGE, 7), format_args!("a page is given away twice"));
    balloon.send(DEFLATE, &[page; 64]);
    report::line(format_args!("case: chains and pages that are none"));
}

/// A list of 8 MiB over the same pages, and reports of all that there is, again and again.
fn lists(balloon: &mut Balloon, us: u64) {
    let (list, len) = (memory::DATA, 0x80_0000u32);
    let first = SPARE / PAGE;
    for at in (0..u64::from(len)).step_by(4) {
        // Never two in a row.
        memory::write(list + at, (first + at / 4 * 5 % (memory::END / PAGE - first)) as u32);
    }
    balloon.rings[INFLATE].chain(0, &[readable(list, len)]);
    balloon.rings[DEFLATE].chain(0, &[readable(list, len)]);
    let spare = (memory::END - SPARE) as u32;
    write_chain(memory::TABLES, 0, (0..100).map(|_| writable(SPARE, spare)));
    balloon.rings[REPORTS].describe(0, memory::TABLES, 100 * DESCRIPTOR as u32, INDIRECT, 0);
    let mut done = 0u64;
    again_and_again(us, || {
        for queue in [INFLATE, DEFLATE, REPORTS] {
            if balloon.rings[queue].in_flight() == 0 {
                balloon.rings[queue].offer(0);
                balloon.device.kick(&balloon.rings[queue]);
            }
            while balloon.rings[queue].take_used().is_some() {
                done += 1;
            }
        }
    });
    for queue in [INFLATE, DEFLATE, REPORTS] {
        while balloon.rings[queue].in_flight() > 0 && balloon.rings[queue].wait_used(20_000_000).is_some() {
            done += 1;
        }
    }
    report::check(done > 0, format_args!("nothing was done"));
    report::line(format_args!("case: {done} lists of two million pages, and reports of 1600 MiB"));
}

fn statistics(balloon: &mut Balloon, us: u64) {
    let ring = &mut balloon.rings[STATISTICS];
    for head in 0..ring.size {
        ring.chain(head, &[readable(memory::DATA, 0x80_0000)]);
    }
    let (mut done, size) = (0u64, ring.size);
    again_and_again(us, || {
        let ring = &mut balloon.rings[STATISTICS];
        while ring.in_flight() < size {
            let head = ring.avail_index() % size;
            ring.offer(head);
        }
        balloon.device.kick(ring);
        while ring.take_used().is_some() {
            done += 1;
        }
    });
    report::check(done > 0, format_args!("no statistics are given back"));
    report::line(format_args!("case: {done} times 8 MiB of statistics"));
}

/// The places of all rings go, and of what the disk reads, while it does: into the balloon, and as free pages.
fn rings(balloon: &mut Balloon, disk: Option<Block>, us: u64) {
    let Some(mut disk) = disk else { return report::fail(format_args!("there is no disk")) };
    let data = (memory::SHARED, 0x40_0000);
    let places = [data, (memory::RINGS, 0x10_0000), (memory::HEADERS, 0x1000)];
    let mut round = 0u32;
    again_and_again(us, || {
        round += 1;
        disk.ring.chain(0, &[header(0, IN, 0), writable(data.0, data.1), status(0)]);
        disk.ring.offer(0);
        disk.kick();
        let queue = if round.is_multiple_of(2) {
            let count = list(places.iter().flat_map(|(at, len)| at / PAGE..(at + u64::from(*len)) / PAGE));
            balloon.rings[INFLATE].chain(0, &[readable(memory::DATA, 4 * count)]);
            INFLATE
        } else {
            balloon.rings[REPORTS].chain(0, &places.map(|(at, len)| writable(at, len)));
            REPORTS
        };
        balloon.rings[queue].offer(0);
        balloon.device.kick(&balloon.rings[queue]);
        clock::sleep_us(2_000);
        // What became of it cannot be told: the rings are gone.
        if round.is_multiple_of(4) {
            let back = disk.restart() && balloon.restart();
            report::check(back, format_args!("a device does not come back from a reset"));
        }
    });
    report::check(disk.restart() && disk.serves(), format_args!("the disk serves no valid request afterwards"));
    report::line(format_args!("case: the rings went {round} times"));
}

/// Writes a list of pages, and returns how many there are.
fn list(pages: impl Iterator<Item = u64>) -> u32 {
    let mut count = 0;
    for (at, page) in (memory::DATA..).step_by(4).zip(pages) {
        memory::write(at, page as u32);
        count += 1;
    }
    count
}

/// This program, its page tables and its stack go, with all the rest.
fn everything(balloon: &mut Balloon) {
    let count = list(0..memory::END / PAGE);
    report::line(format_args!("case: {count} pages go"));
    clock::sleep_us(10_000);
    balloon.rings[INFLATE].chain(0, &[readable(memory::DATA, 4 * count)]);
    balloon.take(INFLATE);
    // Not before the processor reads anew what it runs.
    clock::sleep_us(1_000_000);
}
