//! The virtio-net device: config space, transmission, and when to wait for what.

use std::io;

use super::backend::Backend;
use super::header::{HEADER_LEN, Header, OFFLOAD_FEATURES, Offers, feature};
use super::receive::{Receiver, Waiting};
use crate::error::Result;
use crate::memory::{GuestMemory, IoRanges};
use crate::virtio::spec::device_id;
use crate::virtio::{
    Activation, BackendEvent, BackendInterest, BackendSource, Chain, Progress, Queue, VirtioDevice, read_config_bytes,
};

const QUEUE_SIZES: [u16; 2] = [256, 256];
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
/// Frames sent before the other devices on the thread get their turn.
const BATCH: usize = 64;
/// The config space as far as we have fields (5.1.4): address, status, pairs of queues, MTU.
const CONFIG_LEN: usize = 12;

pub(crate) struct Net {
    backend: Box<dyn Backend>,
    mac: [u8; 6],
    mtu: Option<u16>,
    receiver: Option<Receiver>,
    transmitter: Option<Transmitter>,
}

/// The sending half of a running device.
struct Transmitter {
    queue: Queue,
    memory: GuestMemory,
    offers: Offers,
    /// A frame that the backend could not take.
    blocked: Option<Chain>,
}

impl Net {
    pub(super) fn new(backend: Box<dyn Backend>, mac: [u8; 6], mtu: Option<u16>) -> Self {
        Self { backend, mac, mtu, receiver: None, transmitter: None }
    }

    fn config(&self) -> [u8; CONFIG_LEN] {
        let [a, b, c, d, e, f] = self.mac;
        let [low, high] = self.mtu.unwrap_or(0).to_le_bytes();
        [a, b, c, d, e, f, 0, 0, 0, 0, low, high]
    }

    fn receive(&mut self) -> Result<()> {
        self.receiver.as_mut().map_or(Ok(()), |receiver| receiver.run(self.backend.as_mut()))
    }

    fn transmit(&mut self) -> Result<Progress> {
        self.transmitter.as_mut().map_or(Ok(Progress::Done), |transmitter| transmitter.run(self.backend.as_mut()))
    }
}

impl VirtioDevice for Net {
    fn device_id(&self) -> u32 {
        device_id::NET
    }

    fn features(&self) -> u64 {
        let mtu = if self.mtu.is_some() { 1 << feature::MTU } else { 0 };
        1 << feature::MAC | 1 << feature::MRG_RXBUF | OFFLOAD_FEATURES | mtu
    }

    fn accepts(&self, features: u64) -> bool {
        Offers::to_guest(features).is_consistent() && Offers::to_host(features).is_consistent()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<()> {
        let features = activation.features;
        self.backend.set_offloads(Offers::to_guest(features))?;
        let mergeable = activation.has(feature::MRG_RXBUF);
        let memory = activation.memory.clone();
        self.receiver =
            activation.take_queue(RECEIVE_QUEUE.into()).map(|queue| Receiver::new(queue, memory.clone(), mergeable));
        self.transmitter = activation.take_queue(TRANSMIT_QUEUE.into()).map(|queue| Transmitter {
            queue,
            memory,
            offers: Offers::to_host(features),
            blocked: None,
        });
        Ok(())
    }

    fn process_queue(&mut self, index: u16) -> Result<Progress> {
        match index {
            // What is left of a batch makes the backend readable, which brings us back.
            RECEIVE_QUEUE => self.receive().map(|()| Progress::Done),
            _ => self.transmit(),
        }
    }

    fn backend_sources(&self) -> Vec<BackendSource> {
        vec![BackendSource { token: 0, fd: self.backend.fd() }]
    }

    fn backend_interest(&self, _token: usize) -> BackendInterest {
        BackendInterest {
            readable: self.receiver.as_ref().is_some_and(|receiver| receiver.waiting() == Waiting::Frame),
            writable: self.transmitter.as_ref().is_some_and(|transmitter| transmitter.blocked.is_some()),
        }
    }

    fn process_backend(&mut self, _token: usize, event: BackendEvent) -> Result<()> {
        if event.readable {
            self.receive()?;
        }
        let blocked = self.transmitter.as_ref().is_some_and(|transmitter| transmitter.blocked.is_some());
        if event.writable && blocked && self.transmit()? == Progress::More {
            // The rest of the queue is served at the doorbell, which the driver was not asked to ring.
            if let Some(transmitter) = &self.transmitter {
                transmitter.queue.revisit();
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.receiver = None;
        self.transmitter = None;
    }
}

impl Transmitter {
    fn run(&mut self, backend: &mut dyn Backend) -> Result<Progress> {
        for _ in 0..BATCH {
            let next = match self.blocked.take() {
                Some(chain) => Some(chain),
                None => self.queue.pop()?,
            };
            let Some(chain) = next else { return Ok(Progress::Done) };
            match self.send(backend, &chain) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = Some(chain);
                    return Ok(Progress::Done);
                }
                // A frame that cannot be sent is lost, as on any wire.
                _ => chain.complete(0),
            }
        }
        Ok(Progress::More)
    }

    fn send(&self, backend: &mut dyn Backend, chain: &Chain) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let frame_len = chain.readable_len().checked_sub(HEADER_LEN).ok_or_else(invalid)?;
        let mut bytes = [0; HEADER_LEN as usize];
        chain.read(0, &mut bytes).map_err(io::Error::other)?;
        // The host gets our copy of the header: the guest may change its own after the check.
        let header = Header::parse(bytes, frame_len, self.offers).ok_or_else(invalid)?;
        let segments = chain.readable_range(HEADER_LEN, frame_len).map(|segment| (segment.gpa, segment.len));
        let frame = IoRanges::new(&self.memory, segments).map_err(io::Error::other)?;
        backend.send(&header, &frame)
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
