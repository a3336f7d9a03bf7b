//! Frames sent for a time, or received until so many have come: `size=` bytes each, without the checksum.
//!
//! What is sent goes to an address that nobody has. What is received was put into the host's queue before: the guest says
//! `ready`, waits for a `g`, and offers no more buffers than frames are missing, so that the queue can be filled again. Each frame
//! has its number behind the Ethernet header, from 0 on.

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
    let ([mut queue, _transmit], size) = start(cmdline)?;
    let frames = |key| cmdline.number(key).unwrap_or(1000);
    let mut drain = Drain { slots: queue.ring.size, size, wrong: 0 };
    drain.wait_and_run(&mut queue, frames("warm_frames"))?;
    let kicks = queue.kicks;
    let took = drain.wait_and_run(&mut queue, frames("frames"))?;
    let (kicks, wrong) = (queue.kicks - kicks, drain.wrong);
    line(format_args!("end done={} us={took} kicks={kicks} wrong={wrong}", frames("frames")));
    Ok(())
}

struct Drain {
    slots: u16,
    size: u32,
    wrong: u64,
}

impl Drain {
    /// Returns how long the frames took.
    fn wait_and_run(&mut self, queue: &mut Queue, frames: u64) -> Result<u64, &'static str> {
        line(format_args!("ready"));
        serial::wait_for(b'g');
        let begin = clock::now_us();
        let (mut offered, mut taken, mut last) = (0, 0, begin);
        // The device has no buffer now: the slots below `free` in `unused` are those that it does not have.
        let mut unused = core::array::from_fn::<u16, { MAX_SIZE as usize }, _>(|slot| slot as u16);
        let mut free = usize::from(self.slots);
        while taken < frames {
            while free > 0 && offered < frames {
                free -= 1;
                queue.ring.chain(unused[free], &[writable(place(unused[free]), ROOM)]);
                queue.put(unused[free]);
                offered += 1;
            }
            queue.publish();
            while let Some(used) = queue.take() {
                last = clock::now_us();
                unused[free] = used.id as u16;
                free += 1;
                self.check(used.id as u16, used.written, taken);
                taken += 1;
            }
            if clock::now_us() - last > PATIENCE_US {
                return Err("fewer frames came than were put into the queue");
            }
        }
        Ok(last - begin)
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
