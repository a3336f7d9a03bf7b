//! Doors into private rooms, for the fuzz targets of this repository: they drive the code that ships, and see what a guest sees.
//!
//! Not part of the interface: any version may change it.

use std::sync::{Arc, Mutex};

use crate::arch::{self, Platform};
use crate::balloon::{Balloon, BalloonHandle};
use crate::board::{PowerEvent, ResetCause, SerialPort, connect_ports};
use crate::bus::Bus;
use crate::config::{BalloonConfig, Boot, RngConfig, VsockConfig};
use crate::error::Result;
use crate::legacy::OutputReader;
use crate::memory::{GuestAddress, GuestMemory};
use crate::rng::Rng;
use crate::sys::lock;
use crate::virtio::VirtioDevice;
use crate::vsock::{Vsock, VsockHandle};

/// Returns a source of random bytes.
pub fn rng(config: &RngConfig) -> Box<dyn VirtioDevice> {
    Box::new(Rng::new(config))
}

/// Returns a balloon for a guest with so many bytes of RAM, and its handle.
pub fn balloon(config: &BalloonConfig, ram: u64) -> (Box<dyn VirtioDevice>, BalloonHandle) {
    let device = Balloon::new(config, ram);
    let handle = device.handle();
    (Box::new(device), handle)
}

/// The metadata service of a card, without the card: frames of the guest that are the service's go in, and frames for the guest come out.
#[cfg(feature = "metadata")]
pub struct MetadataStack(crate::metadata::Stack);

#[cfg(feature = "metadata")]
impl MetadataStack {
    /// Makes one whose clock begins at `epoch`.
    ///
    /// # Errors
    /// If the host has no random bytes.
    pub fn new(metadata: &crate::Metadata, epoch: std::time::Instant) -> Result<Self> {
        crate::metadata::Stack::new(metadata.clone(), epoch).map(Self)
    }

    /// Takes a frame.
    pub fn take(&mut self, frame: &[u8], now: std::time::Instant) {
        self.0.take(frame, now);
    }

    /// Goes on with all connections.
    pub fn go_on(&mut self, now: std::time::Instant) {
        self.0.go_on(now);
    }

    /// Returns the next frame for the guest, which is gone then.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.0.next().map(<[u8]>::to_vec)?;
        self.0.done();
        Some(frame)
    }

    /// Returns when [`go_on`](Self::go_on) is to be called.
    pub fn due(&self) -> Option<std::time::Instant> {
        self.0.due()
    }

    /// Forgets all connections.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// How often it has panicked.
    pub fn failures(&self) -> u64 {
        self.0.counters().failures.get()
    }
}

/// Returns a vsock, and what connects to it.
///
/// # Errors
/// If the host gives no descriptors, or no Unix socket.
pub fn vsock(config: &VsockConfig) -> Result<(Box<dyn VirtioDevice>, VsockHandle)> {
    let device = Vsock::open(config)?;
    let handle = device.handle();
    Ok((Box::new(device), handle))
}

/// Returns where the RAM of a guest with so many bytes lies: for each region its first guest address and its length.
pub fn memory_layout(bytes: u64) -> Vec<(GuestAddress, u64)> {
    arch::memory_layout(bytes)
}

/// Returns the first guest address and the interrupt line of the virtio device of this number, which is below 19.
pub fn device_place(index: usize) -> (GuestAddress, u32) {
    let place = arch::mmio_device(index);
    (place.gpa, place.gsi)
}

/// Puts into memory what a guest with so many vCPUs and virtio devices starts with, and returns its entry point.
///
/// # Errors
/// As building a VM.
pub fn load(memory: &GuestMemory, boot: &Boot, vcpus: u32, devices: usize) -> Result<GuestAddress> {
    let places: Vec<_> = (0..devices).map(arch::mmio_device).collect();
    let platform = Platform { vcpus, devices: &places, ..Platform::default() };
    Ok(arch::load(memory, arch::Images::open(boot)?, boot, &platform)?.address)
}

/// What the guest asked a chip for, or told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To be turned off.
    Off,
    /// To start anew.
    Reset(ResetCause),
    /// It panicked.
    Panicked,
    /// It panicked, and goes on in a crash kernel.
    CrashKernel,
}

/// What became of the guest's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Bytes that the guest has written.
    pub written: u64,
    /// Bytes that the reader has got.
    pub delivered: u64,
    /// Bytes that it has missed.
    pub missed: u64,
    /// Bytes that wait for it.
    pub waiting: u64,
}

/// The chips that a guest reaches by ports, with the host's side of each.
pub struct Ports {
    bus: Bus,
    port: SerialPort,
    reader: OutputReader,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Ports {
    /// Makes the chips of a machine.
    ///
    /// # Errors
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) if the host gives no descriptor.
    pub fn new() -> Result<Self> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut bus = Bus::new();
        let asks = Arc::clone(&asked);
        let port = connect_ports(&mut bus, move |event| {
            lock(&asks).push(match event {
                PowerEvent::Off => Asked::Off,
                PowerEvent::Reset(cause) => Asked::Reset(cause),
                PowerEvent::Panicked => Asked::Panicked,
                PowerEvent::CrashKernel => Asked::CrashKernel,
            });
        })?;
        let reader = port.output.reader("a test");
        Ok(Self { bus, port, reader, asked })
    }

    /// Returns the bus that they are on.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Takes what the guest has asked for since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.asked))
    }

    /// Types into the serial port, and returns how many bytes there was room for.
    pub fn type_in(&self, bytes: &[u8]) -> usize {
        self.port.serial.queue_input(bytes)
    }

    /// Does what the I/O thread does when the guest has taken what the port held.
    pub fn feed(&self) {
        if self.port.serial.input_wanted().take() {
            self.port.serial.feed();
        }
    }

    /// Takes at most so many bytes of the guest's output, as the I/O thread does, and lets the guest go on if it waits.
    pub fn take_output(&self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = self.reader.take(&mut bytes, most);
        self.reader.delivered(count);
        if self.port.output.releases() {
            self.port.serial.release_transmitter();
        }
        bytes
    }

    /// Returns what became of the guest's output.
    pub fn output(&self) -> Output {
        let counts = self.port.output.counts().into_iter().next().unwrap_or_default();
        Output {
            written: self.port.output.written(),
            delivered: counts.delivered,
            missed: counts.dropped.saturating_add(counts.lost),
            waiting: counts.waiting,
        }
    }

    /// Whether the serial port has raised its interrupt since the last call.
    pub fn interrupted(&self) -> bool {
        self.port.serial.interrupt().take()
    }
}

/// A WireGuard interface without its socket: datagrams and packets go in, and come out, at the time that it is told.
#[cfg(feature = "wireguard")]
pub struct WireGuardInterface(crate::network::wireguard::Engine);

/// What came of a datagram.
#[cfg(feature = "wireguard")]
pub enum WireGuardArrival {
    /// A packet that its peer may send.
    Packet(Vec<u8>),
    /// A peer that is not known, and where its handshake came from.
    Question(crate::network::wireguard::PublicKey, std::net::SocketAddr),
    /// Neither.
    Nothing,
}

#[cfg(feature = "wireguard")]
impl WireGuardInterface {
    /// Makes one whose clock begins at `epoch`; `asks` says whether there are [questions](WireGuardArrival::Question).
    ///
    /// # Errors
    /// As starting a tunnel.
    pub fn new(
        config: &crate::network::wireguard::Config,
        limits: crate::network::wireguard::TunnelLimits,
        timing: crate::network::wireguard::Timing,
        asks: bool,
        epoch: std::time::Instant,
    ) -> Result<Self> {
        crate::network::wireguard::Engine::new(config, limits, timing, asks, epoch).map(Self)
    }

    /// Sends a packet; says whether it was taken.
    pub fn send(&mut self, packet: &[u8], now: std::time::Instant) -> bool {
        self.0.send(packet, now)
    }

    /// Takes a datagram.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        from: std::net::SocketAddr,
        now: std::time::Instant,
    ) -> WireGuardArrival {
        use crate::network::wireguard::Received;
        match self.0.receive(datagram, from, now) {
            Received::Packet(packet) => WireGuardArrival::Packet(packet.to_vec()),
            Received::Question(key, from) => WireGuardArrival::Question(key, from),
            Received::Nothing => WireGuardArrival::Nothing,
        }
    }

    /// Answers a question; says whether that made a peer.
    pub fn answer(
        &mut self,
        key: crate::network::wireguard::PublicKey,
        answer: Option<&crate::network::wireguard::PeerConfig>,
        now: std::time::Instant,
    ) -> bool {
        self.0.answered(key, answer, now)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: std::time::Instant) {
        self.0.tick(now);
    }

    /// Says when something is due.
    pub fn next(&self) -> Option<std::time::Instant> {
        self.0.next()
    }

    /// Takes the datagrams that it has sent.
    pub fn sent(&mut self) -> Vec<(std::net::SocketAddr, Vec<u8>)> {
        self.0.sent()
    }

    /// How many bytes wait for handshakes.
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }
}
