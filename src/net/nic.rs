//! A network card as a user gives it: which TAP device, and how the guest sees it.

use std::os::fd::OwnedFd;

use super::device::Net;
use crate::config::{NicConfig, check_tap_name};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Tap, random_bytes};
use crate::virtio::IoThread;

/// A network card on a TAP device of the host.
///
/// ```no_run
/// use vmcell::Nic;
///
/// let nic = Nic::tap("tap0")?.mac([0x02, 0, 0, 0, 0, 0x10]).mtu(9000);
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Debug)]
pub struct Nic {
    tap: Tap,
    config: NicConfig,
    io_thread: Option<IoThread>,
}

impl Nic {
    /// Attaches to a TAP device that exists, by its name of 1 to 15 bytes. Nothing else can attach to it for as long as
    /// the card, or the VM that gets it, lives.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a name that no device can have; [`ErrorKind::Network`] where the device is
    /// missing, in use, not a TAP device, or not ours to use.
    pub fn tap(name: &str) -> Result<Self> {
        check_tap_name(name)?;
        Tap::open(name).map(Self::new)
    }

    /// Takes a descriptor of `/dev/net/tun` that the caller has attached to a TAP device, with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`. It is made non-blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where it is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Tap::from_fd(fd).map(Self::new)
    }

    fn new(tap: Tap) -> Self {
        Self { tap, config: NicConfig::default(), io_thread: None }
    }

    /// The address that the guest is told: a unicast one. The default is a random one, marked as locally administered.
    #[must_use]
    pub fn mac(mut self, mac: [u8; 6]) -> Self {
        self.config.mac = Some(mac);
        self
    }

    /// The largest packet without its Ethernet header that the guest is told to send, 68 to 65535 bytes. The TAP device
    /// must be able to take it. The default is to say nothing, and then guests use 1500.
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

    /// The thread that was asked for.
    pub(crate) fn chosen_io_thread(&self) -> Option<&IoThread> {
        self.io_thread.as_ref()
    }

    /// Makes the device.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an address that is not unicast or an MTU out of range.
    pub(crate) fn build(self) -> Result<Net> {
        self.config.validate()?;
        let mac = match self.config.mac {
            Some(mac) => mac,
            None => random_mac()?,
        };
        Ok(Net::new(Box::new(self.tap), mac, self.config.mtu))
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
