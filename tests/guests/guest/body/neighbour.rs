//! The good guest: reads and writes its disk, checks what it reads, and keeps a record of its pace.
//!
//! The test puts the number of each sector into its first 8 bytes. Commands come over the serial port, a byte each: `r`
//! begins a new record, `p` prints it, `s` stops the requests, `g` goes on, `x` ends the guest.

use super::machine::cmdline::Cmdline;
use super::machine::{clock, memory, power, serial};
use super::report;
use super::virtio::block::{Block, FEATURE_FLUSH, IN, MODERN, OK, OUT, SECTOR};
use super::virtio::ring::{readable, writable};

const SECTORS: u64 = 8;
const LEN: u32 = (SECTORS * SECTOR) as u32;
/// A look at the serial port costs an exit.
const LOOK_US: u64 = 1000;

struct Record {
    begun: u64,
    last: u64,
    done: u64,
    wrong: u64,
    worst_us: u64,
}

impl Record {
    fn new() -> Self {
        let now = clock::now_us();
        Self { begun: now, last: now, done: 0, wrong: 0, worst_us: 0 }
    }

    fn add(&mut self, right: bool) {
        let now = clock::now_us();
        self.worst_us = self.worst_us.max(now - self.last);
        self.last = now;
        self.done += 1;
        self.wrong += u64::from(!right);
    }

    fn print(&self) {
        // What is waited for now counts, too.
        let now = clock::now_us();
        let Self { begun, last, done, wrong, worst_us } = *self;
        let worst_us = worst_us.max(now - last);
        report::line(format_args!("pace done={done} wrong={wrong} worst_us={worst_us} in_us={}", now - begun));
    }
}

pub fn run(cmdline: &Cmdline) {
    let Some(mut block) = Block::start(cmdline, MODERN | FEATURE_FLUSH) else {
        return report::fail(format_args!("the neighbour's disk does not start"));
    };
    report::line(format_args!("ready"));
    let mut record = Record::new();
    let mut random = 1u64;
    let (mut looked, mut working) = (0, true);
    loop {
        if clock::now_us() - looked > LOOK_US {
            looked = clock::now_us();
            match serial::read() {
                Some(b'r') => record = Record::new(),
                Some(b'p') => record.print(),
                Some(b's') => working = false,
                Some(b'g') => working = true,
                Some(b'x') => power::off(),
                _ => {}
            }
        }
        if working {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            record.add(exchange(&mut block, random >> 33));
        } else {
            clock::sleep_us(100);
        }
    }
}

/// One request; every fourth one writes what stands on the disk already.
fn exchange(block: &mut Block, random: u64) -> bool {
    let sector = random / 4 % (block.sectors / SECTORS) * SECTORS;
    let stamps = || (0..SECTORS).map(|n| (memory::DATA + n * SECTOR, sector + n));
    if random.is_multiple_of(4) {
        memory::fill(memory::DATA, LEN.into(), 0);
        stamps().for_each(|(at, stamp)| memory::write(at, stamp));
        let answer = block.request(OUT, sector, &[readable(memory::DATA, LEN)]);
        return answer.is_some_and(|answer| answer.status == OK && answer.written == 1);
    }
    stamps().for_each(|(at, _)| memory::write(at, u64::MAX));
    let answer = block.request(IN, sector, &[writable(memory::DATA, LEN)]);
    answer.is_some_and(|answer| answer.status == OK && answer.written == LEN + 1)
        && stamps().all(|(at, stamp)| memory::read::<u64>(at) == stamp)
}
