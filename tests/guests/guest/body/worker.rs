//! A guest that counts under load, for snapshots at any moment.
//!
//! Each step has a number. The guest writes it to its disk and reads it back, sends it over its network card and waits until it comes back,
//! mixes it into its memory, and keeps it in registers of the FPU for a while. What does not come back as it was, it says by `fail`.
//!
//! Commands come over the serial port, a byte each: `s` says how far it is and waits for `g`; `i`, eight digits and a space give it an identity,
//! which is part of each number from then on; `x` ends the guest.

use core::arch::asm;

use super::machine::cmdline::Cmdline;
use super::machine::{clock, memory, power, serial};
use super::report;
use super::virtio::block::{Answer, Block, IN, MODERN, OK, OUT};
use super::virtio::device::{Device, feature};
use super::virtio::ring::{Ring, Used, readable, writable};

/// The disk's sectors are written in turn.
const SECTORS: u64 = 512;
const SECTOR: u32 = 512;
/// Words of memory, changed in turn.
const CELLS: u64 = 4096;
/// The identity stands above the number.
const IDENTITY_SHIFT: u32 = 40;
const WRITTEN: u64 = memory::DATA;
const READ: u64 = memory::DATA + 0x1000;
const SENT: u64 = memory::DATA + 0x2000;
const RECEIVED: u64 = memory::DATA + 0x10_0000;
const BUFFERS: u16 = 8;
const FRAME: u32 = 12 + 60;
/// The number stands behind the header of virtio and that of Ethernet.
const NUMBER: u64 = 12 + 14;
/// A frame that does not come back in this time was lost, as one is that was in the network of another VM.
const LOST_US: u64 = 50_000;
const PATIENCE_US: u64 = 5_000_000;
/// Looks at the serial port cost an exit.
const LOOK_EVERY: u64 = 8;

struct Worker {
    block: Block,
    card: Device,
    receive: Ring,
    transmit: Ring,
    identity: u64,
    hash: u64,
    resent: u64,
}

pub fn run(cmdline: &Cmdline) {
    let Some(mut worker) = Worker::start(cmdline) else {
        return report::fail(format_args!("a device does not start"));
    };
    memory::fill(memory::SHARED, CELLS * 8, 0);
    report::line(format_args!("ready"));
    for number in 1.. {
        worker.step(number);
        if number % LOOK_EVERY == 0 {
            match serial::read() {
                Some(b's') => worker.tell(number),
                Some(b'i') => worker.take_identity(number),
                Some(b'x') => power::off(),
                _ => {}
            }
        }
    }
}

impl Worker {
    fn start(cmdline: &Cmdline) -> Option<Self> {
        let block = Block::start(cmdline, MODERN & !feature::INDIRECT)?;
        let card = Device::find(cmdline, 1)?;
        // The rings of the card lie behind that of the disk.
        let [receive, transmit] = [(0, 5), (1, 6)].map(|(queue, place)| {
            let mut ring = Ring::new(place, 64);
            ring.queue = queue;
            ring
        });
        let agreed = card.negotiate(feature::VERSION_1);
        let ready = agreed && card.set_queue(&receive) && card.set_queue(&transmit);
        card.driver_ok();
        let mut worker = Self { block, card, receive, transmit, identity: 0, hash: 0, resent: 0 };
        (0..BUFFERS).for_each(|slot| worker.offer(slot));
        ready.then_some(worker)
    }

    fn step(&mut self, number: u64) {
        let stamp = self.identity << IDENTITY_SHIFT | number;
        self.exchange(number, stamp);
        self.send_and_wait(stamp);
        let cell = memory::SHARED + number % CELLS * 8;
        self.hash = (self.hash.rotate_left(5) ^ stamp).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        memory::write(cell, memory::read::<u64>(cell) ^ self.hash);
        let kept = keep_in_registers(stamp);
        report::check(kept == [stamp; 3], format_args!("registers: {kept:x?} at {stamp:x}"));
    }

    /// Writes a sector and reads it.
    fn exchange(&mut self, number: u64, stamp: u64) {
        let sector = number % SECTORS;
        memory::write(WRITTEN, stamp);
        memory::write(WRITTEN + u64::from(SECTOR) - 8, !stamp);
        let wrote = self.block.request(OUT, sector, &[readable(WRITTEN, SECTOR)]);
        report::check(wrote == Some(Answer { status: OK, written: 1 }), format_args!("write of {stamp:x}"));
        memory::fill(READ, SECTOR.into(), 0);
        let read = self.block.request(IN, sector, &[writable(READ, SECTOR)]);
        report::check(read == Some(Answer { status: OK, written: SECTOR + 1 }), format_args!("read of {stamp:x}"));
        let found: [u64; 2] = [memory::read(READ), memory::read(READ + u64::from(SECTOR) - 8)];
        report::check(found == [stamp, !stamp], format_args!("disk: {found:x?} at {stamp:x}"));
    }

    /// Sends a frame, and again if it is lost, until it comes back.
    fn send_and_wait(&mut self, stamp: u64) {
        loop {
            memory::fill(SENT, FRAME.into(), 0);
            memory::write(SENT + NUMBER, stamp as u32);
            memory::write(SENT + NUMBER + 4, (stamp >> 32) as u32);
            self.transmit.chain(0, &[readable(SENT, FRAME)]);
            self.transmit.offer(0);
            self.card.kick(&self.transmit);
            let sent = self.transmit.wait_used(PATIENCE_US).is_some();
            report::check(sent, format_args!("frame {stamp:x}"));
            if clock::wait_us(LOST_US, || self.came_back(stamp)) {
                return;
            }
            self.resent += 1;
        }
    }

    /// Frames that were thought to be lost may come late, and are left out.
    fn came_back(&mut self, stamp: u64) -> bool {
        let mut is_back = false;
        while let Some(Used { id, .. }) = self.receive.take_used() {
            let at = place(id as u16) + NUMBER;
            let low: u32 = memory::read(at);
            let high: u32 = memory::read(at + 4);
            is_back |= u64::from(low) | u64::from(high) << 32 == stamp;
            self.offer(id as u16);
        }
        is_back
    }

    fn offer(&mut self, slot: u16) {
        self.receive.chain(slot, &[writable(place(slot), 0x1000)]);
        self.receive.offer(slot);
        self.card.kick(&self.receive);
    }

    fn tell(&self, number: u64) {
        let sum =
            (0..CELLS).fold(0u64, |sum, cell| sum.rotate_left(1) ^ memory::read::<u64>(memory::SHARED + cell * 8));
        let (hash, resent) = (self.hash, self.resent);
        report::line(format_args!("at number={number} hash={hash} sum={sum} resent={resent} end"));
        serial::wait_for(b'g');
    }

    fn take_identity(&mut self, number: u64) {
        let mut identity = 0;
        loop {
            match serial::read() {
                Some(digit @ b'0'..=b'9') => identity = identity * 10 + u64::from(digit - b'0'),
                Some(_) => break,
                None => clock::sleep_us(100),
            }
        }
        self.identity = identity;
        report::line(format_args!("is identity={identity} after={number} end"));
    }
}

fn place(slot: u16) -> u64 {
    RECEIVED + u64::from(slot) * 0x1000
}

/// Keeps a value in registers of SSE, of the x87 and of the CPU itself for some microseconds, and returns what they hold then.
fn keep_in_registers(value: u64) -> [u64; 3] {
    let (sse, general): (u64, u64);
    let (given, mut x87) = (value, 0u64);
    // SAFETY: the registers that change are told, the stack of the x87 is left as it was, and both addresses are those of values of this
    // function.
    unsafe {
        asm!(
            "movq {kept}, {value}",
            "fild qword ptr [{given}]",
            "mov {count:e}, 20000",
            "2:",
            "dec {count:e}",
            "jnz 2b",
            "fistp qword ptr [{x87}]",
            "movq {count}, {kept}",
            kept = out(xmm_reg) _,
            value = inout(reg) value => general,
            given = in(reg) &raw const given,
            x87 = in(reg) &raw mut x87,
            count = out(reg) sse,
            options(nostack)
        );
    }
    [sse, x87, general]
}
