//! A backend on a socket that keeps packets apart, and keeps every rule of NIC backends, or every one but one.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use vmcell::event::{Interest, Io, Token, Wants};
use vmcell::net::{Delivery, Need, NicBackend, NicInfo, Offloads, RxBatch, TxBatch, VnetHeader};

/// The rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    LosesAllThatComes,
    LosesAllThatGoes,
    CutsFrames,
    CorruptsAByte,
    NeverWakes,
    SendsTwice,
    DeliversTwice,
    Reorders,
    KeepsBuffers,
    GivesUpWithoutRoom,
    IgnoresOffloads,
    ServesOneDriver,
    Blocks,
    Panics,
}

pub struct SocketNic {
    socket: Arc<UnixDatagram>,
    fault: Fault,
    token: Option<Token>,
    drivers: usize,
    frames: usize,
    held: Option<Vec<u8>>,
    gave_up: bool,
}

impl SocketNic {
    pub fn new(socket: UnixDatagram, fault: Fault) -> Self {
        socket.set_nonblocking(true).expect("a socket");
        Self { socket: Arc::new(socket), fault, token: None, drivers: 0, frames: 0, held: None, gave_up: false }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn put(&mut self, io: &mut Io, frames: &mut RxBatch, packet: &[u8]) {
        let (Some(header), Some(frame)) = (packet.first_chunk(), packet.get(VnetHeader::LEN..)) else { return };
        let Some(header) = VnetHeader::parse(*header, frame.len() as u32, Offloads::ALL) else { return };
        if self.is(Fault::LosesAllThatComes) {
            return;
        }
        let frame = if self.is(Fault::CutsFrames) && frame.len() > 100 { &frame[..100] } else { frame };
        let mut frame = frame.to_vec();
        if self.is(Fault::CorruptsAByte) && frame.len() > 1000 {
            frame[999] ^= 1;
        }
        for _ in 0..if self.is(Fault::DeliversTwice) { 2 } else { 1 } {
            if frames.put(io, &header, &frame) == Delivery::NoRoom {
                return;
            }
        }
    }

    fn transmit(&mut self, packet: Vec<u8>) -> io::Result<()> {
        self.frames += 1;
        assert!(!self.is(Fault::Panics), "told to panic");
        if self.is(Fault::Blocks) && self.frames.is_multiple_of(500) {
            std::thread::sleep(Duration::from_millis(400));
        }
        if self.is(Fault::LosesAllThatGoes) {
            return Ok(());
        }
        if self.is(Fault::Reorders) && self.held.is_none() && self.frames.is_multiple_of(7) {
            self.held = Some(packet);
            return Ok(());
        }
        self.socket.send(&packet)?;
        if self.is(Fault::SendsTwice) {
            let _ = self.socket.send(&packet);
        }
        if let Some(held) = self.held.take() {
            let _ = self.socket.send(&held);
        }
        Ok(())
    }
}

impl NicBackend for SocketNic {
    fn info(&self) -> NicInfo {
        let mut info = NicInfo::default();
        info.offloads = Offloads::ALL;
        info
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn negotiate(&mut self, _guest: Offloads) -> vmcell::Result<()> {
        self.drivers += 1;
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        if self.is(Fault::ServesOneDriver) && self.drivers > 1 || self.gave_up {
            return;
        }
        if self.is(Fault::IgnoresOffloads) {
            while !io.spent() && matches!(frames.receive_from(io, &self.socket), Ok(Delivery::Delivered)) {}
            return;
        }
        let mut packet = vec![0; 70000];
        while !io.spent() {
            if !frames.has_room(io) {
                self.gave_up = self.is(Fault::GivesUpWithoutRoom);
                return;
            }
            let Ok(len) = self.socket.recv(&mut packet) else { return };
            self.put(io, frames, &packet[..len]);
        }
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            let mut packet = frame.header().to_bytes().to_vec();
            packet.resize(VnetHeader::LEN + frame.len() as usize, 0);
            frame.data().copy_out(0, &mut packet[VnetHeader::LEN..]).expect("it is as long as it says");
            if self.is(Fault::KeepsBuffers) && self.frames > 40 {
                return;
            }
            match self.transmit(packet) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(()) | Err(_) => frames.done(),
            }
        }
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        let interest = match (need.room && !self.gave_up, need.backlog) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Readable,
            (false, true) => Interest::Writable,
            (false, false) => return,
        };
        if let Some(token) = self.token.filter(|_| !self.is(Fault::NeverWakes)) {
            wants.descriptor(token, &self.socket, interest);
        }
    }
}
