//! virtio-net (virtio 1.2, section 5.1), with just enough of a network to ask the host for its address.

use super::device::{Device, feature};
use super::ring::{MAX_SIZE, Ring, Segment, Used, readable, writable};
use crate::body::machine::cmdline::Cmdline;
use crate::body::machine::{clock, memory};

pub const FEATURE_CSUM: u64 = 1 << 0;
pub const FEATURE_MAC: u64 = 1 << 5;
pub const FEATURE_HOST_TSO: u64 = 1 << 11 | 1 << 12;
pub const FEATURE_MERGE: u64 = 1 << 15;
/// The control queue and several pairs of queues, of which the test gives two.
pub const FEATURE_PAIRS: u64 = 1 << 17 | 1 << 22;
pub const MODERN: u64 = feature::VERSION_1 | feature::INDIRECT | FEATURE_MAC;

/// The header in front of each frame.
pub const HEADER: u32 = 12;
/// Ethernet, IPv4 and UDP, as the test's datagrams have them.
pub const UDP: u32 = 14 + 20 + 8;
const DEVICE_ID: u32 = 1;
const CONTROL_SIZE: u16 = 64;
const ROOM: u32 = 2048;
/// Where frames to be sent are put together.
pub const OUTGOING: u64 = memory::SHARED;
const HOST: [u8; 4] = [10, 78, 0, 1];
const GUEST: [u8; 4] = [10, 78, 0, 2];

pub struct Net {
    pub device: Device,
    pub receive: Ring,
    pub transmit: Ring,
    /// The second pair, and the control queue behind it, if the features are such.
    pub second: [Ring; 2],
    pub control: Ring,
    pub features: u64,
    mac: [u8; 6],
}

impl Net {
    /// The first network card, running with these features.
    pub fn start(cmdline: &Cmdline, features: u64) -> Option<Self> {
        let device = Device::find(cmdline, DEVICE_ID)?;
        let mut mac = [0; 6];
        (0..).zip(&mut mac).for_each(|(at, byte)| *byte = device.config(at));
        let [receive, transmit, third, fourth, control] = [0, 1, 2, 3, 4].map(|queue| Ring::new(queue, 1));
        let mut net = Self { device, receive, transmit, second: [third, fourth], control, features, mac };
        net.restart().then_some(net)
    }

    /// Resets the device and brings it up again with empty queues.
    pub fn restart(&mut self) -> bool {
        let agreed = self.device.negotiate(self.features);
        self.receive = Ring::new(0, MAX_SIZE);
        self.transmit = Ring::new(1, MAX_SIZE);
        self.second = [2, 3].map(|queue| Ring::new(queue, MAX_SIZE));
        self.control = Ring::new(4, CONTROL_SIZE);
        let mut ready = agreed && self.device.set_queue(&self.receive) && self.device.set_queue(&self.transmit);
        if self.features & FEATURE_PAIRS != 0 {
            let others = self.second.iter().chain([&self.control]);
            ready &= others.fold(true, |ready, ring| ready & self.device.set_queue(ring));
        }
        self.device.driver_ok();
        ready
    }

    /// Sends a command alone, with room for its answer behind it; gives the answer, or nothing if the chain was not completed.
    pub fn command(&mut self, segments: &[Segment]) -> Option<u8> {
        memory::write(memory::STATUSES, 0xee_u8);
        self.control.chain(0, segments);
        self.control.offer(0);
        self.device.kick(&self.control);
        self.control.wait_used(5_000_000).map(|_| memory::read(memory::STATUSES))
    }

    /// Sends a chain alone; says whether it was completed.
    pub fn send(&mut self, segments: &[Segment]) -> bool {
        self.transmit.chain(0, segments);
        self.transmit.offer(0);
        self.device.kick(&self.transmit);
        self.transmit.wait_used(5_000_000).is_some()
    }

    /// Offers `slot` to receive into, a buffer of this length of its own.
    pub fn offer(&mut self, slot: u16, len: u32) {
        self.receive.chain(slot, &[writable(place(slot), len)]);
        self.receive.offer(slot);
    }

    /// Waits for a completed receive chain.
    pub fn received(&mut self, us: u64) -> Option<Used> {
        self.receive.wait_used(us)
    }

    /// Whether the card works in both directions: the host says, asked, which address it has.
    pub fn serves(&mut self) -> bool {
        (0..16).for_each(|slot| self.offer(slot, ROOM));
        self.device.kick(&self.receive);
        for _ in 0..5 {
            if !self.send(&[self.question()]) {
                return false;
            }
            let mut answered = false;
            clock::wait_us(500_000, || {
                while let Some(Used { id, .. }) = self.receive.take_used() {
                    let at = place(id as u16) + u64::from(HEADER);
                    answered |= memory::read::<u16>(at + 12) == 0x0608 && memory::read::<u16>(at + 20) == 0x0200;
                    self.offer(id as u16, ROOM);
                    self.device.kick(&self.receive);
                }
                answered
            });
            if answered {
                return true;
            }
        }
        false
    }

    /// "Who has the host's address?", with the header in front.
    fn question(&self) -> Segment {
        let at = OUTGOING;
        memory::fill(at, 64, 0);
        memory::fill(at + 12, 6, 0xff);
        memory::copy_in(at + 18, &self.mac);
        // ARP for IPv4 over Ethernet: a request.
        memory::copy_in(at + 24, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        memory::copy_in(at + 34, &self.mac);
        memory::copy_in(at + 40, &GUEST);
        memory::copy_in(at + 50, &HOST);
        readable(at, HEADER + 42)
    }

    /// A frame that nobody is interested in, of this length, with the header in front; the header is all zero.
    pub fn frame(&self, len: u32) -> Segment {
        let at = OUTGOING;
        memory::fill(at, 64, 0);
        memory::fill(at + 12, 6, 0xff);
        memory::copy_in(at + 18, &self.mac);
        // A type for experiments.
        memory::copy_in(at + 24, &[0x88, 0xb5]);
        readable(at, HEADER + len)
    }
}

/// The buffer of a receive slot.
pub fn place(slot: u16) -> u64 {
    memory::DATA + u64::from(slot) * 0x1000
}

/// Whether a datagram of the test begins at this place, behind the header.
pub fn is_datagram(at: u64) -> bool {
    let frame = at + u64::from(HEADER);
    memory::read::<u16>(frame + 12) == 0x0008 && memory::read::<u8>(frame + 23) == 17
}
