//! Frames from one guest to another: one that asks, and one that answers.
//!
//! `head=` is the beginning of each frame that is sent, as hexadecimal digits, and `size=` its length without the checksum. Only frames of
//! that length are counted, so that what the network itself says to its guests is not. With `interrupts=1` a guest sleeps until a frame
//! comes, and notices nothing of one that gets lost.

use super::interrupts::Interrupts;
use super::machine::cmdline::Cmdline;
use super::machine::{clock, memory, serial};
use super::measure::{Count, Times, line};
use super::queue::{self, Queue};
use super::virtio::device::Device;
use super::virtio::ring::{readable, writable};

const DEVICE_ID: u32 = 1;
/// In front of each frame (virtio 1.2, section 5.1.6).
const HEADER: u32 = 12;
const ROOM: u32 = 2048;
/// Where what is sent lies, behind what is received.
const SENT: u64 = memory::DATA + 256 * ROOM as u64;
/// Whoever is asked may be slow, or the frame may be lost.
const PATIENCE_US: u64 = 100_000;

struct Card {
    receive: Queue,
    transmit: Queue,
    size: u32,
}

impl Card {
    fn start(cmdline: &Cmdline) -> Result<Self, &'static str> {
        let device = Device::find(cmdline, DEVICE_ID).ok_or("there is no network card")?;
        let size = cmdline.number("size").unwrap_or(64) as u32;
        if !(62..=ROOM - HEADER).contains(&size) {
            return Err("this size is not possible");
        }
        let ([receive, transmit], _) = queue::start(device, 0)?;
        let mut card = Self { receive, transmit, size };
        if cmdline.number("interrupts") == Some(1) {
            card.receive.use_interrupts(Interrupts::of(cmdline, device).ok_or("the card has no interrupt")?);
        }
        for slot in 0..card.receive.ring.size {
            card.receive.ring.chain(slot, &[writable(received(slot), ROOM)]);
            card.receive.put(slot);
        }
        card.receive.publish();
        Ok(card)
    }

    /// Writes the frame that is to be sent from each place.
    fn fill(&mut self, cmdline: &Cmdline) -> Result<(), &'static str> {
        let head = cmdline.text("head").ok_or("there is no head")?.as_bytes();
        for slot in 0..self.transmit.ring.size {
            memory::fill(sent(slot), (HEADER + self.size).into(), 0);
            for (at, pair) in (sent(slot) + u64::from(HEADER)..).zip(head.chunks_exact(2)) {
                let digits = digit(pair[0]).zip(digit(pair[1])).ok_or("the head is no hexadecimal number")?;
                memory::write(at, digits.0 << 4 | digits.1);
            }
            self.transmit.ring.chain(slot, &[readable(sent(slot), HEADER + self.size)]);
        }
        Ok(())
    }

    /// Calls `each` for the frames that have come, and offers their buffers again.
    fn take(&mut self, mut each: impl FnMut(&mut Queue, u64)) -> u64 {
        let mut taken = 0;
        while let Some(used) = self.receive.take() {
            let slot = used.id as u16;
            if used.written == HEADER + self.size {
                each(&mut self.transmit, received(slot) + u64::from(HEADER));
                taken += 1;
            }
            self.receive.put(slot);
        }
        self.receive.publish();
        taken
    }
}

/// Sends frames as long as no more than `window=` of them are on their way: each that comes back says that `every=` of them have arrived.
pub fn ask(cmdline: &Cmdline) -> Result<(), &'static str> {
    let mut card = Card::start(cmdline)?;
    card.fill(cmdline)?;
    let number = |key| cmdline.number(key).unwrap_or(1);
    let (window, every) = (number("window").min(card.transmit.ring.size.into()), number("every"));
    go();
    // A card completes what it sends in order, so the slots are used one after the other.
    let (mut free, mut slots) = (card.transmit.ring.size, (0..card.transmit.ring.size).cycle());
    let (mut under_way, mut heard) = (0, clock::now_us());
    let mut count = Count::default();
    Times::of(cmdline).measure(|| {
        while free > 0 && under_way < window {
            slots.next().into_iter().for_each(|slot| card.transmit.put(slot));
            (free, under_way) = (free - 1, under_way + 1);
        }
        card.transmit.publish();
        let arrived = card.take(|_, _| ()) * every;
        if arrived > 0 {
            heard = clock::now_us();
            count.done += arrived;
            under_way -= arrived.min(under_way);
        } else if clock::now_us() - heard > PATIENCE_US {
            // They are lost.
            (heard, under_way) = (clock::now_us(), 0);
            count.wrong += 1;
        } else {
            card.receive.rest();
        }
        while card.transmit.take().is_some() {
            free += 1;
        }
        count.kicks = card.transmit.kicks;
        count
    });
    Ok(())
}

/// Sends back one of `every=` frames that come, until it is told to end.
pub fn echo(cmdline: &Cmdline) -> Result<(), &'static str> {
    let mut card = Card::start(cmdline)?;
    let every = cmdline.number("every").unwrap_or(1);
    let size = u64::from(card.size);
    for slot in 0..card.transmit.ring.size {
        card.transmit.ring.chain(slot, &[readable(sent(slot), HEADER + card.size)]);
    }
    line(format_args!("ready"));
    let (mut free, mut slots) = (card.transmit.ring.size, (0..card.transmit.ring.size).cycle());
    let (mut looked, mut number) = (clock::now_us(), 0);
    loop {
        let came = card.take(|transmit, frame| {
            number += 1;
            if number % every == 0
                && let Some(slot) = slots.next()
            {
                if free == 0 {
                    transmit.publish();
                    clock::wait_us(PATIENCE_US, || transmit.take().is_some());
                    free = 1;
                }
                turn_round(frame, sent(slot) + u64::from(HEADER), size);
                transmit.put(slot);
                free -= 1;
            }
        });
        card.transmit.publish();
        while card.transmit.take().is_some() {
            free += 1;
        }
        if came == 0 {
            card.receive.rest();
        }
        if came == 0 && clock::now_us() - looked > PATIENCE_US {
            // Each look at the port costs an exit.
            looked = clock::now_us();
            if serial::read() == Some(b'e') {
                line(format_args!("end done={number} us=1 kicks=0 wrong=0"));
                return Ok(());
            }
        }
    }
}

/// Copies a frame with its addresses and ports the other way round.
fn turn_round(from: u64, to: u64, len: u64) {
    for word in (0..len).step_by(8) {
        memory::write(to + word, memory::read::<u64>(from + word));
    }
    for (at, len) in [(0, 6), (22, 16), (54, 2)] {
        for byte in at..at + len {
            memory::write(to + byte, memory::read::<u8>(from + byte + len));
            memory::write(to + byte + len, memory::read::<u8>(from + byte));
        }
    }
}

/// Waits until all who take part are there.
fn go() {
    line(format_args!("ready"));
    serial::wait_for(b'g');
}

fn digit(letter: u8) -> Option<u8> {
    (letter as char).to_digit(16).map(|digit| digit as u8)
}

fn received(slot: u16) -> u64 {
    memory::DATA + u64::from(slot) * u64::from(ROOM)
}

fn sent(slot: u16) -> u64 {
    SENT + u64::from(slot) * u64::from(ROOM)
}
