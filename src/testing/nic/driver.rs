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

const MEMORY: u64 = 16 << 20;
/// Descriptors of a queue; a frame that is sent takes two of them.
const SIZE: u16 = 128;
const SLOTS: u16 = SIZE / 2;
/// Room for the largest packet.
const SLOT: u64 = 17 * 4096;
const SENT: u64 = 0x20_0000;
const RECEIVED: u64 = 0x80_0000;
/// What a buffer holds if a frame may take several, as in Linux.
const PAGE: u64 = 4096;

/// CSUM, TSO4, TSO6 and ECN, to the host and to the guest (5.1.3).
const OFFLOADS: u64 = 1 << 0 | 0b111 << 11 | 1 << 1 | 0b111 << 7;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;

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
    rx: DriverQueue,
    tx: DriverQueue,
    control: DriverQueue,
    mergeable: bool,
    fills: bool,
    /// Buffers that the device has.
    buffers: u16,
    /// Frames that were sent and not given back.
    under_way: u16,
    next_slot: u16,
}

impl NicDriver {
    /// Brings a NIC up without offloads. It has no buffers yet.
    ///
    /// # Errors
    /// If the NIC cannot be made.
    pub fn new(nic: Nic, io_thread: &IoThread) -> Result<Self> {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), MEMORY)])?;
        let transport = MmioTransport::new(nic.into_device()?, memory.clone(), io_thread)?;
        let [rx, tx, control] = lay_out(&memory);
        let driver = MmioDriver::new(transport);
        let mut own = Self {
            driver,
            memory,
            rx,
            tx,
            control,
            mergeable: true,
            fills: false,
            buffers: 0,
            under_way: 0,
            next_slot: 0,
        };
        own.restart(false, true);
        Ok(own)
    }

    /// Resets the device and brings it up anew, with all offloads that it offers or none, and with frames that may be spread over
    /// several buffers or not.
    ///
    /// # Panics
    /// If the device refuses.
    pub fn restart(&mut self, offloads: bool, mergeable: bool) {
        // The old rings must not be written again before the device has let go of them.
        self.driver.write(mmio::STATUS, 0);
        [self.rx, self.tx, self.control] = lay_out(&self.memory);
        (self.mergeable, self.fills) = (mergeable, false);
        (self.buffers, self.under_way, self.next_slot) = (0, 0, 0);
        let own = STATUS | if offloads { OFFLOADS } else { 0 } | if mergeable { MRG_RXBUF } else { 0 };
        let features = self.driver.offered() & (1 << VERSION_1 | 1 << RING_EVENT_IDX | own);
        self.driver.bring_up(features, &[&self.rx, &self.tx, &self.control]);
    }

    /// Gives the device `count` more buffers for frames, or fewer if it may not have so many.
    pub fn offer(&mut self, count: u16) {
        // Frames that may not be spread need larger buffers, of which fewer fit in the memory.
        let most = if self.mergeable { SIZE } else { SIZE / 4 };
        let count = count.min(most - self.buffers);
        self.buffers += count;
        for _ in 0..count {
            // The queue hands its descriptors out in turn, so that the next one is known.
            let descriptor = self.rx.avail_index() % SIZE;
            self.rx.offer(&[Buffer::writable(self.buffer(descriptor), self.buffer_len() as u32)]);
        }
        self.driver.kick(0);
    }

    /// Returns how many buffers the device has.
    pub fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Keeps the device supplied with as many buffers as it may have, from now on.
    pub fn fill(&mut self) {
        self.fills = true;
        self.offer(SIZE);
    }

    /// Sends a packet. Returns whether there was room for it; the device gets it now or soon.
    ///
    /// # Panics
    /// If the packet is larger than the largest frame with its header.
    pub fn send(&mut self, packet: &[u8]) -> bool {
        while self.tx.take_used().is_some() {
            self.under_way -= 1;
        }
        if self.under_way == SLOTS {
            return false;
        }
        assert!(packet.len() as u64 <= SLOT, "a packet of {} bytes is no packet", packet.len());
        let at = SENT + u64::from(self.next_slot) * SLOT;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        self.under_way += 1;
        self.memory.write(GuestAddress(at), packet).expect("the slot lies in the memory");
        let len = packet.len() as u32;
        let head = len.min(VnetHeader::LEN as u32);
        self.tx.offer(&[Buffer::readable(at, head), Buffer::readable(at + u64::from(head), len - head)]);
        self.driver.kick(1);
        true
    }

    /// Waits until the device has given back everything that was sent. Returns whether it did so within `limit`.
    pub fn all_sent(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while self.under_way > 0 {
            match self.tx.take_used() {
                Some(_) => self.under_way -= 1,
                None if begun.elapsed() > limit => return false,
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        true
    }

    /// Returns the next packet, if one comes within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let begun = Instant::now();
        loop {
            if let Some(packet) = self.take_received() {
                return Some(packet);
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

    fn take_received(&mut self) -> Option<Vec<u8>> {
        let (head, len) = self.rx.take_used()?;
        let mut packet = self.bytes(head, len);
        let count = packet.get(10..12).map_or(1, |count| u16::from_le_bytes([count[0], count[1]]));
        for _ in 1..count {
            // They are published together with the first.
            let (head, len) = self.rx.take_used()?;
            packet.extend(self.bytes(head, len));
        }
        self.buffers -= count;
        if self.fills {
            self.offer(count);
        }
        Some(packet)
    }

    fn bytes(&self, head: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let head = u16::try_from(head).expect("the device completes what it was given");
        self.memory.read(GuestAddress(self.buffer(head)), &mut bytes).expect("the buffer lies in the memory");
        bytes
    }

    fn buffer(&self, descriptor: u16) -> u64 {
        let place = if self.mergeable { descriptor } else { descriptor % (SIZE / 4) };
        RECEIVED + u64::from(place) * self.buffer_len()
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
        f.debug_struct("NicDriver").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

fn lay_out(memory: &GuestMemory) -> [DriverQueue; 3] {
    [(0x1000, SIZE), (0x4000, SIZE), (0x8000, 16)].map(|(at, size)| DriverQueue::new(memory, GuestAddress(at), size))
}
