//! What a card is connected to: it brings frames, and takes them, as it is told.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmcell::event::{Event, Io, Wants};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, Offloads, RxBatch, TxBatch, VnetHeader};

use super::model::passes;
use crate::alloc::{counted, uncounted};

/// A packet: its header, and the frame.
pub type Packet = ([u8; VnetHeader::LEN], Vec<u8>);

/// What one backend of a card is connected to.
pub struct Line {
    /// Frames for the guest, and whether each comes through a descriptor.
    pub incoming: VecDeque<(Packet, bool)>,
    /// What the guest should find, in order.
    pub delivered: VecDeque<Packet>,
    /// What the guest has sent, in order.
    pub sent: VecDeque<Packet>,
    /// The two ends of a descriptor.
    near: UnixDatagram,
    far: UnixDatagram,
    /// The first of `incoming` lies in the descriptor.
    in_descriptor: bool,
}

/// What test and backends have in common.
pub struct Wire {
    pub lines: [Line; 2],
    /// What was lost, and on which line.
    pub dropped: Vec<(usize, Packet)>,
    /// How many frames of the guest it takes before it is full.
    pub room: u8,
    /// What the guest copes with, as the device says.
    pub guest: Offloads,
    /// Bytes that were moved since the test looked last.
    pub moved: u64,
}

/// A line of the wire, as a backend of the device.
pub struct Backend {
    pub wire: Arc<Mutex<Wire>>,
    pub line: usize,
}

/// Looks at the wire.
pub fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn new() -> Self {
        let (near, far) = UnixDatagram::pair().expect("the host gives descriptors");
        near.set_nonblocking(true).expect("a socket can be non-blocking");
        far.set_nonblocking(true).expect("a socket can be non-blocking");
        Self {
            incoming: VecDeque::new(),
            delivered: VecDeque::new(),
            sent: VecDeque::new(),
            near,
            far,
            in_descriptor: false,
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.in_descriptor) {
            let _ = self.near.recv(&mut [0]);
        }
        self.incoming.clear();
        self.delivered.clear();
        self.sent.clear();
    }
}

impl Wire {
    /// A wire without a frame on it.
    pub fn new() -> Self {
        let lines = [Line::new(), Line::new()];
        Self { lines, dropped: Vec::new(), room: u8::MAX, guest: Offloads::NONE, moved: 0 }
    }

    /// Takes all frames for the guest away.
    pub fn clear(&mut self) {
        self.lines.iter_mut().for_each(Line::clear);
        self.dropped.clear();
    }

    /// Brings the first frame of a line; says whether there may be another one.
    fn bring(&mut self, number: usize, io: &mut Io, frames: &mut RxBatch) -> bool {
        let line = &mut self.lines[number];
        let Some(((header, frame), through_descriptor)) = line.incoming.front().cloned() else { return false };
        let mut delivery = Delivery::NoRoom;
        if through_descriptor {
            if !std::mem::replace(&mut line.in_descriptor, true) {
                line.far.send(&[&header[..], &frame].concat()).expect("the socket takes one packet");
            }
            counted(&mut || delivery = frames.receive_from(io, &line.near).expect("there is a packet"));
        } else {
            let len = u32::try_from(frame.len()).expect("it is short");
            // What a header must be like is known to the device alone; one that cannot be made is not brought.
            let Some(parsed) = VnetHeader::parse(header, len, Offloads::ALL) else {
                line.incoming.pop_front();
                return true;
            };
            counted(&mut || delivery = frames.put(io, &parsed, &frame));
        }
        if delivery == Delivery::NoRoom {
            return false;
        }
        line.in_descriptor = false;
        line.incoming.pop_front();
        self.moved += frame.len() as u64;
        match delivery {
            Delivery::Delivered if through_descriptor => line.delivered.push_back((header, frame)),
            Delivery::Delivered => {
                assert!(passes(&header, frame.len(), self.guest), "a frame with {header:?} may not pass");
                line.delivered.push_back((without_extras(header), frame));
            }
            _ => self.dropped.push((number, (header, frame))),
        }
        true
    }

    fn take(&mut self, number: usize, frames: &mut TxBatch, io: &mut Io) -> bool {
        if self.room == 0 {
            return false;
        }
        let line = &mut self.lines[number];
        // The same one until it is done, so that what the device allocates for it can be counted apart.
        counted(&mut || _ = frames.next(io));
        let Some(frame) = frames.next(io) else { return false };
        let mut data = vec![0; usize::try_from(frame.len()).expect("it is short")];
        frame.data().copy_out(0, &mut data).expect("the frame is as long as it says");
        let header = frame.header().to_bytes();
        frame.send_to(&line.near).expect("the socket takes one packet");
        let mut packet = vec![0; 70_000];
        let len = line.far.recv(&mut packet).expect("the packet is there");
        assert!(packet[..len] == [&header[..], &data].concat(), "what is sent is not what the frame holds");
        frames.done();
        self.moved += data.len() as u64;
        self.room -= u8::from(self.room < u8::MAX);
        line.sent.push_back((header, data));
        true
    }
}

/// Those fields of a header that mean something: one of its flags, and not the number of buffers.
pub fn without_extras(mut header: [u8; VnetHeader::LEN]) -> [u8; VnetHeader::LEN] {
    header[0] &= 1;
    header[10..].fill(0);
    header
}

impl NicBackend for Backend {
    fn info(&self) -> NicInfo {
        let mut info = NicInfo::default();
        info.offloads = Offloads::ALL;
        info
    }

    fn negotiate(&mut self, guest: Offloads) -> vmcell::Result<()> {
        lock(&self.wire).guest = guest;
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        let mut wire = lock(&self.wire);
        uncounted(|| while !io.spent() && wire.bring(self.line, io, frames) {});
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        let mut wire = lock(&self.wire);
        uncounted(|| while wire.take(self.line, frames, io) {});
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        let wire = lock(&self.wire);
        if need.room && !wire.lines[self.line].incoming.is_empty() || need.backlog && wire.room > 0 {
            wants.again();
        }
    }

    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}
