//! Frames sent for a time, or received until so many have come: `size=` bytes each, without the checksum.
//!
//! What is sent goes to an address that nobody has. What is received was put into the host's queue before: the guest says
//! `ready`, waits for a `g`, and in the end offers few more buffers than frames are missing, so that the queue can be filled again.
//! Each frame has its number behind the Ethernet header, from 0 on.

use super::machine::cmdline::Cmdline;
use super::machine::{clock, memory, serial};
use super::measure::{Count, Times, line};
use super::queue::{self, Queue};
use super::virtio::device::Device;
use super::virtio::ring::{MAX_SIZE, readable, writable};

const DEVICE_ID: u32 = 1;
/// In front of each frame (virtio 1.2, section 5.1.6).
const HEADER: u32 = 12;
const ROOM: u32 = 2048;
const ETHERNET: u64 = 14;
/// From and to addresses of no one, of a type for experiments, as its two bytes stand in memory.
const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0xbe, 1, 2, 0, 0, 0, 0xbe, 2];
const TYPE: u16 = 0xb588;
/// How many buffers stay when the last frame has come: Firecracker receives only if it has room for 64 KiB.
const SPARE: u64 = 64;
/// How long the next frame may take.
const PATIENCE_US: u64 = 2_000_000;

fn start(cmdline: &Cmdline) -> Result<([Queue; 2], u32), &'static str> {
    let device = Device::find(cmdline, DEVICE_ID).ok_or("there is no network card")?;
    let size = cmdline.number("size").unwrap_or(64) as u32;
    if !(ETHERNET as u32 + 8..=ROOM - HEADER).contains(&size) {
        return Err("this size is not possible");
    }
    let (queues, _) = queue::start(device, 0)?;
    Ok((queues, size))
}

pub fn send(cmdline: &Cmdline) -> Result<(), &'static str> {
    let ([_receive, mut queue], size) = start(cmdline)?;
    for slot in 0..queue.ring.size {
        let at = place(slot);
        memory::fill(at, (HEADER + size).into(), 0);
        memory::copy_in(at + u64::from(HEADER), &ADDRESSES);
        memory::write(at + u64::from(HEADER) + 12, TYPE);
        queue.ring.chain(slot, &[readable(at, HEADER + size)]);
        queue.put(slot);
    }
    let mut count = Count::default();
    Times::of(cmdline).measure(|| {
        while let Some(used) = queue.take() {
            queue.put(used.id as u16);
            count.done += 1;
        }
        queue.publish();
        count.kicks = queue.kicks;
        count
    });
    Ok(())
}

pub fn receive(cmdline: &Cmdline) -> Result<(), &'static str> {
    let ([queue, _transmit], size) = start(cmdline)?;
    let frames = |key| cmdline.number(key).unwrap_or(1000);
    let mut drain = Drain::new(queue, size);
    drain.wait_and_run(frames("warm_frames"))?;
    let kicks = drain.queue.kicks;
    let (done, took) = drain.wait_and_run(frames("frames"))?;
    let (kicks, wrong) = (drain.queue.kicks - kicks, drain.wrong);
    line(format_args!("end done={done} us={took} kicks={kicks} wrong={wrong}"));
    Ok(())
}

struct Drain {
    queue: Queue,
    size: u32,
    /// The slots whose buffers the device does not have are the first `free` ones in here.
    slots: [u16; MAX_SIZE as usize],
    free: u16,
    wrong: u64,
}

impl Drain {
    fn new(queue: Queue, size: u32) -> Self {
        let free = queue.ring.size;
        Self { queue, size, slots: core::array::from_fn(|slot| slot as u16), free, wrong: 0 }
    }

    /// Returns how many frames came since the word to go, and how long they took.
    fn wait_and_run(&mut self, frames: u64) -> Result<(u64, u64), &'static str> {
        line(format_args!("ready"));
        serial::wait_for(b'g');
        // These came into the buffers that were left from last time.
        let early = self.take(0);
        let (begin, mut taken) = (clock::now_us(), early);
        let mut last = begin;
        while taken < frames {
            self.offer(frames - taken);
            let new = self.take(taken);
            let now = clock::now_us();
            if new > 0 {
                last = now;
            } else if now - last > PATIENCE_US {
                return Err("fewer frames came than were put into the queue");
            }
            taken += new;
        }
        Ok((taken - early, last - begin))
    }

    /// Offers buffers for as many frames, and those to spare.
    fn offer(&mut self, frames: u64) {
        while self.free > 0 && u64::from(self.queue.ring.size - self.free) < frames + SPARE {
            self.free -= 1;
            let slot = self.slots[usize::from(self.free)];
            self.queue.ring.chain(slot, &[writable(place(slot), ROOM)]);
            self.queue.put(slot);
        }
        self.queue.publish();
    }

    /// Takes the frames that are there, the first of which has this number; returns how many.
    fn take(&mut self, first: u64) -> u64 {
        let mut number = first;
        while let Some(used) = self.queue.take() {
            let slot = used.id as u16;
            self.slots[usize::from(self.free)] = slot;
            self.free += 1;
            self.check(slot, used.written, number);
            number += 1;
        }
        number - first
    }

    fn check(&mut self, slot: u16, written: u32, number: u64) {
        let frame = place(slot) + u64::from(HEADER);
        let right = written == HEADER + self.size
            && memory::read::<u16>(frame + 12) == TYPE
            && u64::from(memory::read::<u16>(frame + ETHERNET)) == number & 0xffff;
        self.wrong += u64::from(!right);
    }
}

fn place(slot: u16) -> u64 {
    memory::DATA + u64::from(slot) * u64::from(ROOM)
}
