//! A guest that answers: over its vsock it sends back what it gets, behind the first bytes of its disk, and it prints what is typed.
//!
//! It needs 16 MiB. All its ports take connections, one at a time. Only the host ends it.

use super::machine::cmdline::Cmdline;
use super::machine::{memory, serial};
use super::report;
use super::virtio::block::{Answer, Block, IN, MODERN, OK, SECTOR};
use super::virtio::device::{Device, feature, reg};
use super::virtio::ring::{Ring, readable, writable};
use super::virtio::vsock::{
    CREDIT_REQUEST, CREDIT_UPDATE, DEVICE_ID, HEADER, Header, REQUEST, RESPONSE, RST, RW, SHUTDOWN,
};

/// Where the first sector of the disk lies; its first bytes go in front of each answer.
const NAME: u64 = memory::DATA;
const NAME_LEN: u64 = 16;
/// Buffers to receive into, and one to send.
const BUFFERS: u64 = memory::DATA + 0x1000;
const BUFFER: u64 = 0x1000;
const OUTGOING: u64 = memory::HEADERS + 0x1000;
const RECEIVED: u16 = 16;
const PATIENCE_US: u64 = 60_000_000;

struct Vsock {
    device: Device,
    cid: u64,
    rx: Ring,
    tx: Ring,
    /// The two ports of the connection, if there is one.
    connected: Option<(u32, u32)>,
    /// How many bytes came over it.
    consumed: u32,
}

pub fn run(cmdline: &Cmdline) {
    let read = Some(Answer { status: OK, written: SECTOR as u32 + 1 });
    let disk = Block::start(cmdline, MODERN & !feature::INDIRECT);
    if disk.and_then(|mut disk| disk.request(IN, 0, &[writable(NAME, SECTOR as u32)])) != read {
        return report::fail(format_args!("the disk cannot be read"));
    }
    let Some(mut vsock) = Vsock::start(cmdline) else {
        return report::fail(format_args!("there is no vsock"));
    };
    loop {
        if let Some(byte) = serial::read() {
            serial::write(byte);
        }
        vsock.serve();
    }
}

impl Vsock {
    fn start(cmdline: &Cmdline) -> Option<Self> {
        let device = Device::find(cmdline, DEVICE_ID)?;
        let agreed = device.negotiate(feature::VERSION_1);
        // The rings lie behind that of the disk.
        let [rx, tx, events] = [0, 1, 2].map(|queue| {
            device.write(reg::QUEUE_SEL, queue);
            let mut ring = Ring::new(queue + 1, device.read(reg::QUEUE_NUM_MAX).min(u32::from(RECEIVED)) as u16);
            ring.queue = queue;
            ring
        });
        let ready = agreed && [&rx, &tx, &events].into_iter().all(|ring| device.set_queue(ring));
        device.driver_ok();
        let mut vsock = Self { device, cid: device.config(0), rx, tx, connected: None, consumed: 0 };
        (0..vsock.rx.size).for_each(|head| vsock.offer(head));
        device.kick(&vsock.rx);
        ready.then_some(vsock)
    }

    fn offer(&mut self, head: u16) {
        self.rx.chain(head, &[writable(BUFFERS + u64::from(head) * BUFFER, BUFFER as u32)]);
        self.rx.offer(head);
    }

    /// Answers what came.
    fn serve(&mut self) {
        while let Some(used) = self.rx.take_used() {
            let at = BUFFERS + u64::from(used.id) * BUFFER;
            let header = Header::read(at);
            self.take(header, at + HEADER);
            self.offer(used.id as u16);
            self.device.kick(&self.rx);
        }
    }

    fn take(&mut self, header: Header, data: u64) {
        let ports = Some((header.src_port, header.dst_port));
        match header.op {
            REQUEST if self.connected.is_none() => {
                (self.connected, self.consumed) = (ports, 0);
                self.send(header, RESPONSE, 0);
            }
            RST if self.connected == ports => self.connected = None,
            RST => {}
            _ if self.connected != ports => self.send(header, RST, 0),
            RW => self.answer(header, data),
            SHUTDOWN => {
                self.connected = None;
                self.send(header, RST, 0);
            }
            CREDIT_REQUEST => self.send(header, CREDIT_UPDATE, 0),
            _ => {}
        }
    }

    fn answer(&mut self, header: Header, data: u64) {
        let len = u64::from(header.len).min(BUFFER - HEADER);
        self.consumed = self.consumed.wrapping_add(len as u32);
        copy(OUTGOING + HEADER, NAME, NAME_LEN);
        copy(OUTGOING + HEADER + NAME_LEN, data, len);
        self.send(header, RW, (NAME_LEN + len) as u32);
    }

    /// Sends a packet to where `to` came from, with the data behind the place of its header.
    fn send(&mut self, to: Header, op: u16, len: u32) {
        let header = Header::new((self.cid, to.dst_port), to.src_port, op);
        Header { len, consumed: self.consumed, ..header }.write(OUTGOING);
        self.tx.chain(0, &[readable(OUTGOING, HEADER as u32 + len)]);
        self.tx.offer(0);
        self.device.kick(&self.tx);
        if self.tx.wait_used(PATIENCE_US).is_none() {
            report::fail(format_args!("a packet is not taken"));
        }
    }
}

fn copy(to: u64, from: u64, len: u64) {
    (0..len).for_each(|at| memory::write(to + at, memory::read::<u8>(from + at)));
}
