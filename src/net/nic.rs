//! A network card as the host program describes it: which TAP device or backend, and how the guest sees it.

use std::os::fd::OwnedFd;

use super::backend::NicBackend;
use super::device::Net;
use super::handle::NicHandle;
use super::tap::TapBackend;
use crate::config::{NicConfig, check_tap_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::sys::{Tap, random_bytes};
use crate::virtio::VirtioDevice;

/// A network card on a TAP device of the host, or on a backend of your own.
///
/// ```no_run
/// use vmcell::Nic;
///
/// let nic = Nic::tap("tap0")?.mac([0x02, 0, 0, 0, 0, 0x10]).mtu(9000);
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Nic {
    backend: Box<dyn NicBackend>,
    blocks: bool,
    /// What messages call the card, before it has a number.
    name: String,
    config: NicConfig,
    io_thread: Option<IoThread>,
    handle: NicHandle,
}

impl Nic {
    /// Attaches to an existing TAP device by its name of 1 to 15 bytes. Nothing else can attach to the device for as long as
    /// the card, or the VM that it becomes part of, lives.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a name that no device can have; [`ErrorKind::Network`] if the device is missing, in
    /// use, not a TAP device, or may not be used by this process.
    pub fn tap(name: &str) -> Result<Self> {
        Self::from_config(&NicConfig::tap(name))
    }

    /// Attaches to the TAP device that `config` names, as [`tap`](Self::tap) does, for a card with its settings.
    ///
    /// # Errors
    /// Those of [`tap`](Self::tap).
    pub fn from_config(config: &NicConfig) -> Result<Self> {
        check_tap_name(&config.tap)?;
        let tap = Tap::open(&config.tap)?;
        let nic = Self::new(Box::new(TapBackend::new(tap)), false, &config.tap);
        Ok(Self { config: config.clone(), ..nic })
    }

    /// Takes a descriptor of `/dev/net/tun` that the caller has attached to a TAP device, with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`. The descriptor is made non-blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] if the descriptor is anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Tap::from_fd(fd).map(|tap| Self::new(Box::new(TapBackend::new(tap)), false, "from a descriptor"))
    }

    /// Puts a backend of your own under the card; see [`NicBackend`] for its rules.
    ///
    /// The backend gets an I/O thread of its own, so that a backend that blocks harms only its own card. It runs on another
    /// thread if one is [chosen](Self::io_thread), and on the VM's if the caller [vouches](Self::never_blocks) that it never
    /// blocks.
    pub fn backend(backend: impl NicBackend + 'static) -> Self {
        Self::new(Box::new(backend), true, "on a backend")
    }

    fn new(backend: Box<dyn NicBackend>, blocks: bool, name: &str) -> Self {
        let (name, config) = (name.to_owned(), NicConfig::tap(""));
        Self { backend, blocks, name, config, io_thread: None, handle: NicHandle::new() }
    }

    /// What messages call the card of this number in a VM: `nic 0 (tap0)`.
    pub(crate) fn label(&self, index: usize) -> String {
        format!("nic {index} ({})", self.name)
    }

    /// Vouches that the [backend](Self::backend) never blocks, so that it may share the VM's own I/O thread. A card on a TAP
    /// device never blocks, so this has no effect on one.
    #[must_use]
    pub fn never_blocks(mut self) -> Self {
        self.blocks = false;
        self
    }

    /// Returns a handle that changes the card while its VM runs. Take it before the card is given to a VM.
    pub fn handle(&self) -> NicHandle {
        self.handle.clone()
    }

    /// Sets the MAC address that the guest is told, which must be a unicast one. The default is a random address that is marked
    /// as locally administered.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.config.mac = Some(mac);
        self
    }

    /// Sets the largest packet, without its Ethernet header, that the guest is told to send: 68 to 65535 bytes. The TAP device
    /// must be able to take it. By default the guest is told nothing, and then guests use 1500.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.config.mtu = Some(mtu);
        self
    }

    /// Serves the card on this thread rather than on the VM's own.
    #[must_use]
    pub fn io_thread(mut self, io_thread: IoThread) -> Self {
        self.io_thread = Some(io_thread);
        self
    }

    /// Makes the device, for a machine of your own; [`VmBuilder::nic`](crate::VmBuilder::nic) does this for a whole VM. The
    /// thread that was [chosen](Self::io_thread) for the card does not matter: the transport is given one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an address that is not unicast or an MTU out of range.
    pub fn into_device(self) -> Result<Box<dyn VirtioDevice>> {
        Ok(Box::new(self.build()?))
    }

    /// The thread that is to serve it.
    pub(crate) fn placement(&self) -> Placement {
        match &self.io_thread {
            Some(io_thread) => Placement::Chosen(io_thread.clone()),
            None if self.blocks => Placement::Alone,
            None => Placement::Shared,
        }
    }

    fn build(self) -> Result<Net> {
        self.config.validate()?;
        let mac = match self.config.mac {
            Some(mac) => mac,
            None => random_mac()?,
        };
        Ok(Net::new(self.backend, mac, self.config.mtu, self.handle))
    }
}

impl std::fmt::Debug for Nic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nic").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

fn random_mac() -> Result<[u8; 6]> {
    let mut bytes = [0; 5];
    random_bytes(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Host, "cannot get random bytes for a MAC address").with_source(e))?;
    let [b, c, d, e, f] = bytes;
    // Unicast, and the bit of addresses that no maker has given out.
    Ok([0x02, b, c, d, e, f])
}

#[cfg(test)]
#[path = "nic_test.rs"]
mod tests;
