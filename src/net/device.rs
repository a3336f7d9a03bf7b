//! The virtio-net device: config space, link, and which half has something to do.

use super::announce;
use super::backend::{Need, NicBackend, NicInfo};
use super::feature;
use super::handle::NicHandle;
use super::offloads::Offloads;
use super::receive::{Receiver, RxBatch};
use super::transmit::{Transmitter, TxBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Token, Wants};
use crate::meter::Meter;
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, DeviceInfo, DeviceState, Guarded, Queues, VirtioDevice};

/// Receiving, sending, control.
const QUEUE_SIZES: [u16; 3] = [256, 256, 64];
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
const CONTROL_QUEUE: u16 = 2;

/// Bits of the status field (5.1.4).
const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;

/// The form of a saved state: one byte, whether an announcement is outstanding.
const STATE_VERSION: u32 = 1;

pub(crate) struct Net {
    backend: Guarded<dyn NicBackend>,
    info: NicInfo,
    mac: [u8; 6],
    mtu: Option<u16>,
    handle: NicHandle,
    handle_token: Option<Token>,
    /// The guest is asked to announce itself.
    announcing: bool,
    running: Option<Running>,
}

struct Running {
    receiver: Receiver,
    transmitter: Transmitter,
    /// The driver knows announcements.
    announces: bool,
}

impl Net {
    pub(super) fn new(backend: Box<dyn NicBackend>, mac: [u8; 6], mtu: Option<u16>, handle: NicHandle) -> Self {
        let info = backend.info();
        let backend = Guarded::new(backend, ErrorKind::Network);
        Self { backend, info, mac, mtu, handle, handle_token: None, announcing: false, running: None }
    }

    fn link_is_up(&self) -> bool {
        self.info.link_up && self.handle.link()
    }

    fn receive(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let (Some(running), Some(queue)) = (&mut self.running, queues.get(RECEIVE_QUEUE)) else { return Ok(()) };
        if !(self.info.link_up && self.handle.link()) {
            return Ok(());
        }
        let mut frames = RxBatch::new(&mut running.receiver, queue);
        self.backend.call(|backend| backend.receive(io, &mut frames))?;
        frames.finish(self.handle.counters())
    }

    fn transmit(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let (Some(running), Some(queue)) = (&mut self.running, queues.get(TRANSMIT_QUEUE)) else { return Ok(()) };
        if !(self.info.link_up && self.handle.link()) {
            return running.transmitter.discard(io, queue, self.handle.counters());
        }
        let mut frames = TxBatch::new(&mut running.transmitter, queue);
        self.backend.call(|backend| backend.send(io, &mut frames))?;
        frames.finish(self.handle.counters())
    }

    fn control(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(queue) = queues.get(CONTROL_QUEUE) else { return Ok(()) };
        if announce::serve(io, queue)? && std::mem::take(&mut self.announcing) {
            io.info_changed();
        }
        Ok(())
    }

    fn take_announcement(&mut self, io: &mut Io) {
        let Some(running) = &self.running else { return };
        if self.handle.take_announce() && running.announces {
            self.announcing = true;
            io.info_changed();
        }
    }

    fn need(&self) -> Need {
        let Some(running) = &self.running else { return Need::default() };
        Need {
            room: running.receiver.has_room() && self.link_is_up(),
            backlog: running.transmitter.has_backlog() && self.link_is_up(),
        }
    }
}

impl VirtioDevice for Net {
    fn info(&self) -> DeviceInfo {
        use feature::{
            CSUM, CTRL_VQ, GUEST_ANNOUNCE, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, HOST_ECN, HOST_TSO4,
            HOST_TSO6, MAC, MRG_RXBUF, MTU, STATUS,
        };
        let mtu = if self.mtu.is_some() { 1 << MTU } else { 0 };
        let link = 1 << STATUS | 1 << CTRL_VQ | 1 << GUEST_ANNOUNCE;
        DeviceInfo::new(device_id::NET, &QUEUE_SIZES)
            .features(1 << MAC | 1 << MRG_RXBUF | link | mtu | self.info.offloads.features())
            // What depends on something stands together with it (5.1.3.1).
            .requires(GUEST_TSO4, 1 << GUEST_CSUM)
            .requires(GUEST_TSO6, 1 << GUEST_CSUM)
            .requires(GUEST_ECN, 1 << GUEST_TSO4 | 1 << GUEST_TSO6)
            .requires(HOST_TSO4, 1 << CSUM)
            .requires(HOST_TSO6, 1 << CSUM)
            .requires(HOST_ECN, 1 << HOST_TSO4 | 1 << HOST_TSO6)
            .requires(GUEST_ANNOUNCE, 1 << CTRL_VQ)
    }

    fn config(&mut self) -> Vec<u8> {
        if let Some(info) = self.backend.look(|backend| backend.info()) {
            self.info.link_up = info.link_up;
        }
        let link = if self.link_is_up() { STATUS_LINK_UP } else { 0 };
        let announce = if self.announcing { STATUS_ANNOUNCE } else { 0 };
        let mut config = self.mac.to_vec();
        config.extend((link | announce).to_le_bytes());
        // Pairs of queues: a field that only drivers with several read.
        config.extend(1u16.to_le_bytes());
        config.extend(self.mtu.unwrap_or(0).to_le_bytes());
        config
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.handle_token = Some(token);
        self.handle.set_waker(io.waker(token));
        self.backend.call(|backend| backend.attach(io))??;
        let mut meter = Meter::new();
        self.backend.look(|backend| backend.metrics(&mut meter));
        self.handle.set_meter(meter);
        Ok(())
    }

    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()> {
        let features = activation.features;
        let guest = Offloads::to_guest(features);
        self.backend.call(|backend| backend.negotiate(guest))??;
        if let Some(state) = &activation.state {
            self.announcing = restore(state)?;
        }
        self.running = Some(Running {
            receiver: Receiver::new(activation.has(feature::MRG_RXBUF), guest),
            transmitter: Transmitter::new(Offloads::to_host(features)),
            announces: activation.has(feature::GUEST_ANNOUNCE),
        });
        // What the host program asked for before is for this driver, if for any.
        self.take_announcement(io);
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        match index {
            RECEIVE_QUEUE => self.receive(io, queues),
            TRANSMIT_QUEUE => self.transmit(io, queues),
            _ => self.control(io, queues),
        }
    }

    fn wants(&self, wants: &mut Wants) {
        let need = self.need();
        self.backend.look(|backend| backend.wants(need, wants));
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        if self.handle_token == Some(event.token) {
            self.take_announcement(io);
            // The link may be another.
            io.info_changed();
        } else {
            self.backend.call(|backend| backend.woken(io, event))?;
        }
        self.receive(io, queues)?;
        if self.running.as_ref().is_some_and(|running| running.transmitter.has_backlog()) {
            self.transmit(io, queues)?;
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if let Some(queue) = queues.get(RECEIVE_QUEUE) {
            running.receiver.put_back(queue)?;
        }
        match queues.get(TRANSMIT_QUEUE) {
            Some(queue) => running.transmitter.put_back(queue),
            None => Ok(()),
        }
    }

    fn reset(&mut self, io: &mut Io) {
        self.running = None;
        if std::mem::take(&mut self.announcing) {
            io.info_changed();
        }
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(DeviceState::new(STATE_VERSION, [u8::from(self.announcing)]))
    }
}

fn restore(state: &DeviceState) -> Result<bool> {
    match (state.version, state.bytes.as_slice()) {
        (STATE_VERSION, [0]) => Ok(false),
        (STATE_VERSION, [1]) => Ok(true),
        (version, bytes) => {
            let len = bytes.len();
            let message =
                format!("the saved state of a NIC is of version {version} and {len} bytes, known is 1 with 1");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
