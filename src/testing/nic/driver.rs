//! Drives a NIC as a guest's driver does.

use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::error::Result;
use crate::event::IoThread;
use crate::memory::{GuestAddress, GuestMemory};
use crate::net::{Nic, VnetHeader};
use crate::testing::{Buffer, DriverQueue, MmioDriver};
use crate::virtio::MmioTransport;
use crate::virtio::spec::feature::{RING_EVENT_IDX, VERSION_1};
use crate::virtio::spec::{mmio, status};

/// What each pair of queues has for itself.
const MEMORY: u64 = 16 << 20;
/// Descriptors of a queue; a frame that is sent takes two of them.
const SIZE: u16 = 128;
const SLOTS: u16 = SIZE / 2;
/// Room for the largest packet.
const SLOT: u64 = 17 * 4096;
/// The control queue, and its commands, in the memory of the first pair.
const CONTROL: u64 = 0x8000;
const COMMAND: u64 = 0x9000;
const SENT: u64 = 0x20_0000;
const RECEIVED: u64 = 0x80_0000;
/// What a buffer holds if a frame may take several, as in Linux.
const PAGE: u64 = 4096;

/// CSUM, TSO4, TSO6 and ECN, to the host and to the guest (5.1.3).
const OFFLOADS: u64 = 1 << 0 | 0b111 << 11 | 1 << 1 | 0b111 << 7;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
/// CTRL_VQ and MQ.
const SEVERAL: u64 = 1 << 17 | 1 << 22;

/// A guest's driver for a NIC, in the hands of a test. It sends and receives packets, each of which is a header of 12 bytes and a
/// frame.
///
/// ```no_run
/// use std::time::Duration;
/// use vmcell::testing::NicDriver;
/// use vmcell::{IoThread, Nic};
///
/// # fn my_nic() -> Nic { unimplemented!() }
/// let mut guest = NicDriver::new(my_nic(), &IoThread::new("test-io")?)?;
/// guest.fill();
/// let mut packet = vec![0; 12]; // nothing is left undone
/// packet.extend([0xff; 6]); // to everybody
/// packet.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
/// assert!(guest.send(&packet));
/// let answer = guest.receive(Duration::from_secs(10)).expect("an answer");
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct NicDriver {
    driver: MmioDriver,
    memory: GuestMemory,
    pairs: Vec<Pair>,
    control: DriverQueue,
    /// So many pairs are in use.
    in_use: usize,
    /// The pair that the next frame is sent on.
    next_pair: usize,
    mergeable: bool,
    fills: bool,
}

/// A pair of queues, and what the device has of it.
struct Pair {
    /// Where its memory begins.
    base: u64,
    rx: DriverQueue,
    tx: DriverQueue,
    /// Buffers that the device has.
    buffers: u16,
    /// Frames that were sent and not given back.
    under_way: u16,
    next_slot: u16,
}

impl Pair {
    fn new(memory: &GuestMemory, number: usize) -> Self {
        let base = number as u64 * MEMORY;
        let queue = |at| DriverQueue::new(memory, GuestAddress(base + at), SIZE);
        Self { base, rx: queue(0x1000), tx: queue(0x4000), buffers: 0, under_way: 0, next_slot: 0 }
    }
}

impl NicDriver {
    /// Brings a NIC up without offloads, with one pair of queues. It has no buffers yet.
    ///
    /// # Errors
    /// If the NIC cannot be made.
    pub fn new(nic: Nic, io_thread: &IoThread) -> Result<Self> {
        let device = nic.into_device()?;
        // All queues but the control queue are pairs.
        let count = device.info().queue_sizes.len() / 2;
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), MEMORY * count as u64)])?;
        let driver = MmioDriver::new(MmioTransport::new(device, memory.clone(), io_thread)?);
        let (pairs, control) = lay_out(&memory, count);
        let mut own = Self { driver, memory, pairs, control, in_use: 1, next_pair: 0, mergeable: true, fills: false };
        own.restart(false, true);
        Ok(own)
    }

    /// Returns how many pairs of queues the NIC has.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Resets the device and brings it up anew, with all offloads that it offers or none, and with frames that may be spread over
    /// several buffers or not. It uses one pair of queues.
    ///
    /// # Panics
    /// If the device refuses.
    pub fn restart(&mut self, offloads: bool, mergeable: bool) {
        let own = if offloads { OFFLOADS } else { 0 } | if mergeable { MRG_RXBUF } else { 0 };
        self.begin_anew(mergeable);
        let Pair { rx, tx, .. } = &self.pairs[0];
        self.driver.bring_up(self.features(own), &[rx, tx, &self.control]);
    }

    /// Resets the device and brings it up anew with all its pairs of queues, and without offloads. Then it uses one until it is told
    /// [otherwise](Self::use_pairs).
    ///
    /// # Panics
    /// If the device refuses, or has only one pair.
    pub fn restart_with_pairs(&mut self) {
        self.begin_anew(true);
        let queues = self.pairs.iter().flat_map(|pair| [&pair.rx, &pair.tx]).chain([&self.control]);
        self.driver.bring_up(self.features(MRG_RXBUF | SEVERAL), &queues.collect::<Vec<_>>());
    }

    fn begin_anew(&mut self, mergeable: bool) {
        // The old rings must not be written again before the device has let go of them.
        self.driver.write(mmio::STATUS, 0);
        (self.pairs, self.control) = lay_out(&self.memory, self.pairs.len());
        (self.in_use, self.next_pair, self.mergeable, self.fills) = (1, 0, mergeable, false);
    }

    fn features(&self, own: u64) -> u64 {
        self.driver.offered() & (1 << VERSION_1 | 1 << RING_EVENT_IDX | STATUS | own)
    }

    /// Asks the device to use so many pairs, after [`restart_with_pairs`](Self::restart_with_pairs). Returns whether it does: then
    /// frames are sent on them in turn, and may come on each.
    ///
    /// # Panics
    /// If the device does not answer.
    pub fn use_pairs(&mut self, count: u16) -> bool {
        let [low, high] = count.to_le_bytes();
        self.memory.write(GuestAddress(COMMAND), &[4, 0, low, high, 0xff]).expect("it lies in the memory");
        self.control.offer(&[Buffer::readable(COMMAND, 4), Buffer::writable(COMMAND + 4, 1)]);
        self.driver.kick(2 * self.pairs.len() as u32);
        self.driver.wait_used(&mut self.control);
        let mut answer = [0xff];
        self.memory.read(GuestAddress(COMMAND + 4), &mut answer).expect("it lies in the memory");
        let obeyed = answer == [0];
        if obeyed {
            (self.in_use, self.next_pair) = (count.into(), 0);
        }
        if self.fills {
            self.fill();
        }
        obeyed
    }

    /// Gives the first pair of the device `count` more buffers for frames, or fewer if it may not have so many.
    pub fn offer(&mut self, count: u16) {
        self.offer_on(0, count);
    }

    fn offer_on(&mut self, pair: usize, count: u16) {
        // Frames that may not be spread need larger buffers, of which fewer fit in the memory.
        let most = if self.mergeable { SIZE } else { SIZE / 4 };
        let len = self.buffer_len() as u32;
        let count = count.min(most - self.pairs[pair].buffers);
        self.pairs[pair].buffers += count;
        for _ in 0..count {
            // The queue hands its descriptors out in turn, so that the next one is known.
            let descriptor = self.pairs[pair].rx.avail_index() % SIZE;
            let at = self.buffer(pair, descriptor);
            self.pairs[pair].rx.offer(&[Buffer::writable(at, len)]);
        }
        self.driver.kick(2 * pair as u32);
    }

    /// Returns how many buffers the first pair of the device has.
    pub fn buffers(&self) -> u16 {
        self.pairs[0].buffers
    }

    /// Keeps the pairs that are in use supplied with as many buffers as they may have, from now on.
    pub fn fill(&mut self) {
        self.fills = true;
        (0..self.in_use).for_each(|pair| self.offer_on(pair, SIZE));
    }

    /// Sends a packet, on each pair in use in turn. Returns whether there was room for it; the device gets it now or soon.
    ///
    /// # Panics
    /// If the packet is larger than the largest frame with its header.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        let took = self.send_on(self.next_pair, packet);
        self.next_pair = (self.next_pair + 1) % self.in_use;
        took
    }

    /// As [`send`](Self::send), on this pair, counted from 0.
    ///
    /// # Panics
    /// If there is no such pair, or the packet is larger than the largest frame with its header.
    pub fn send_on(&mut self, number: usize, packet: &[u8]) -> bool {
        let pair = &mut self.pairs[number];
        while pair.tx.take_used().is_some() {
            pair.under_way -= 1;
        }
        if pair.under_way == SLOTS {
            return false;
        }
        assert!(packet.len() as u64 <= SLOT, "a packet of {} bytes is no packet", packet.len());
        let at = pair.base + SENT + u64::from(pair.next_slot) * SLOT;
        pair.next_slot = (pair.next_slot + 1) % SLOTS;
        pair.under_way += 1;
        self.memory.write(GuestAddress(at), packet).expect("the slot lies in the memory");
        let len = packet.len() as u32;
        let head = len.min(VnetHeader::LEN as u32);
        pair.tx.offer(&[Buffer::readable(at, head), Buffer::readable(at + u64::from(head), len - head)]);
        self.driver.kick(2 * number as u32 + 1);
        true
    }

    /// Waits until the device has given back everything that was sent. Returns whether it did so within `limit`.
    pub fn all_sent(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        for pair in &mut self.pairs {
            while pair.under_way > 0 {
                match pair.tx.take_used() {
                    Some(_) => pair.under_way -= 1,
                    None if begun.elapsed() > limit => return false,
                    None => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        }
        true
    }

    /// Returns the next packet, if one comes within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        self.receive_with_pair(limit).map(|(_, packet)| packet)
    }

    /// Returns the next packet and the pair on which it came, if one comes within `limit`.
    pub fn receive_with_pair(&mut self, limit: Duration) -> Option<(usize, Vec<u8>)> {
        let begun = Instant::now();
        loop {
            let mut pairs = 0..self.pairs.len();
            if let Some(found) = pairs.find_map(|pair| Some((pair, self.take_received(pair)?))) {
                return Some(found);
            }
            if begun.elapsed() >= limit {
                return None;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Stops the device between two frames.
    ///
    /// # Errors
    /// If it does not stand still within `limit`.
    pub fn pause(&self, limit: Duration) -> Result<()> {
        self.driver.transport().pause(limit)
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.driver.transport().resume();
    }

    /// Whether the guest sees the link up.
    pub fn link_is_up(&self) -> bool {
        self.driver.read(mmio::CONFIG + 4) & 1 << 16 != 0
    }

    /// Whether the device has failed.
    pub fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }

    fn take_received(&mut self, pair: usize) -> Option<Vec<u8>> {
        let (head, len) = self.pairs[pair].rx.take_used()?;
        let mut packet = self.bytes(pair, head, len);
        let count = packet.get(10..12).map_or(1, |count| u16::from_le_bytes([count[0], count[1]]));
        for _ in 1..count {
            // They are published together with the first.
            let (head, len) = self.pairs[pair].rx.take_used()?;
            packet.extend(self.bytes(pair, head, len));
        }
        self.pairs[pair].buffers -= count;
        if self.fills {
            self.offer_on(pair, count);
        }
        Some(packet)
    }

    fn bytes(&self, pair: usize, head: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let head = u16::try_from(head).expect("the device completes what it was given");
        self.memory.read(GuestAddress(self.buffer(pair, head)), &mut bytes).expect("the buffer lies in the memory");
        bytes
    }

    fn buffer(&self, pair: usize, descriptor: u16) -> u64 {
        let place = if self.mergeable { descriptor } else { descriptor % (SIZE / 4) };
        self.pairs[pair].base + RECEIVED + u64::from(place) * self.buffer_len()
    }

    fn buffer_len(&self) -> u64 {
        if self.mergeable { PAGE } else { SLOT }
    }
}

impl Wire for NicDriver {
    fn send(&mut self, packet: &[u8]) -> bool {
        Self::send(self, packet)
    }

    fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        Self::receive(self, limit)
    }
}

impl std::fmt::Debug for NicDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NicDriver").field("pairs", &self.pairs.len()).finish_non_exhaustive()
    }
}

fn lay_out(memory: &GuestMemory, count: usize) -> (Vec<Pair>, DriverQueue) {
    let pairs = (0..count).map(|number| Pair::new(memory, number)).collect();
    (pairs, DriverQueue::new(memory, GuestAddress(CONTROL), 16))
}
