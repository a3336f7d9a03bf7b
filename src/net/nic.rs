//! A network card as the host program describes it: which TAP device or backend, and how the guest sees it.

use std::os::fd::OwnedFd;

use super::backend::NicBackend;
use super::device::Net;
use super::handle::NicHandle;
use super::tap::TapBackend;
use crate::config::{Limits, NicConfig, check_queue_count, check_tap_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{IoThread, Placement};
use crate::limit::LimitGroup;
use crate::sys::{Tap, TapDevice, random_bytes};
use crate::virtio::VirtioDevice;

/// A network card on a TAP device of the host, or on a backend of your own.
///
/// ```no_run
/// use vmcell::Nic;
///
/// let nic = Nic::tap("tap0")?.mac([0x02, 0, 0, 0, 0, 0x10]).mtu(9000).queues(2);
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Nic {
    wire: Wire,
    blocks: bool,
    /// What messages call the card, before it has a number.
    name: String,
    config: NicConfig,
    /// How many queues a TAP device that has several is asked for, if nothing was said about it.
    default_queues: u16,
    io_thread: Option<IoThread>,
    receive_group: Option<LimitGroup>,
    send_group: Option<LimitGroup>,
    handle: NicHandle,
    layers: Vec<Layer>,
}

/// Puts something on the backend of each pair of queues.
type Layer = Box<dyn FnMut(Box<dyn NicBackend>) -> Box<dyn NicBackend> + Send>;

/// What frames come from and go to.
enum Wire {
    /// Its other queues are attached when it is known how many there are to be.
    Tap(TapDevice),
    /// One for each pair of queues.
    Backends(Vec<Box<dyn NicBackend>>),
}

impl Nic {
    /// Attaches to an existing TAP device by its name of 1 to 15 bytes.
    ///
    /// Nothing else can attach to the device for as long as the card, or the VM that it becomes part of, lives. That is up to the
    /// kernel if the device has one queue. If it was made with several (`ip tuntap add ... multi_queue`), a card refuses the device
    /// if anything else is attached, but a program other than vmcell may attach to it later, and then takes frames away.
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
        let nic = Self::new(Wire::Tap(TapDevice::open(&config.tap)?), false, &config.tap);
        Ok(Self { config: config.clone(), ..nic })
    }

    /// Takes a descriptor of `/dev/net/tun` that the caller has attached to a TAP device, with `IFF_TAP`, `IFF_NO_PI` and
    /// `IFF_VNET_HDR`. The descriptor is made non-blocking.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] if the descriptor is anything else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::from_fds([fd])
    }

    /// Takes several descriptors like that of [`from_fd`](Self::from_fd), attached to one TAP device with `IFF_MULTI_QUEUE`, too.
    /// The card has a pair of queues for each, 16 at most.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if there are none, or too many; [`ErrorKind::Network`] if one is anything else, of another
    /// device than the first, or a copy of another one.
    pub fn from_fds(fds: impl IntoIterator<Item = OwnedFd>) -> Result<Self> {
        let fds: Vec<_> = fds.into_iter().collect();
        check_queue_count(fds.len())?;
        let name = if fds.len() == 1 { "from a descriptor" } else { "from descriptors" };
        Ok(Self::new(Wire::Backends(TapBackend::all(Tap::from_fds(fds)?)), false, name))
    }

    /// Puts a backend of your own under the card; see [`NicBackend`] for its rules.
    ///
    /// The backend gets an I/O thread of its own, so that a backend that blocks harms only its own card. It runs on another
    /// thread if one is [chosen](Self::io_thread), and on the VM's if the caller [vouches](Self::never_blocks) that it never
    /// blocks.
    pub fn backend(backend: impl NicBackend + 'static) -> Self {
        Self::backends([Box::new(backend) as Box<dyn NicBackend>])
    }

    /// Puts several backends of your own under the card, one for each of its pairs of queues, 16 at most. One thread calls all of
    /// them, which is that of a card on [one backend](Self::backend).
    ///
    /// What the guest sends on a pair goes to the pair's backend. The guest decides how many pairs get frames, and may change its
    /// mind: if there are fewer than backends, the first pairs get the frames of all. The link is up if all backends say so, and
    /// what all of them offer is offered to the guest. The frames that answer those sent on a pair should come from the pair's
    /// backend: then the guest's CPU that sent them gets the answer.
    ///
    /// ```no_run
    /// use vmcell::Nic;
    /// use vmcell::net::NicBackend;
    ///
    /// # fn port_of_a_switch(queue: u16) -> Box<dyn NicBackend> { unimplemented!() }
    /// let nic = Nic::backends((0..4).map(port_of_a_switch)).never_blocks();
    /// ```
    pub fn backends(backends: impl IntoIterator<Item = Box<dyn NicBackend>>) -> Self {
        Self::new(Wire::Backends(backends.into_iter().collect()), true, "on a backend")
    }

    /// What messages call the card of this number in a VM: `nic 0 (tap0)`.
    pub(crate) fn label(&self, index: usize) -> String {
        format!("nic {index} ({})", self.name)
    }

    fn new(wire: Wire, blocks: bool, name: &str) -> Self {
        let (config, handle) = (NicConfig::tap(""), NicHandle::new());
        Self {
            wire,
            blocks,
            name: name.to_owned(),
            config,
            default_queues: 1,
            io_thread: None,
            receive_group: None,
            send_group: None,
            handle,
            layers: Vec::new(),
        }
    }

    /// Puts a layer of your own between the card and what it is on: a TAP device, or your backend. `make` is given the backend of each
    /// pair of queues in turn, and returns one that passes on to it what it does not change. It is called while the VM is built. A
    /// layer that is put on later lies above.
    ///
    /// As a [backend](Self::backend) does, a layer gives the card an I/O thread of its own, unless you vouch by
    /// [`never_blocks`](Self::never_blocks), called behind this, that it never blocks.
    ///
    /// ```
    /// use vmcell::Nic;
    /// use vmcell::net::NicBackend;
    ///
    /// # fn capture(below: Box<dyn NicBackend>) -> Box<dyn NicBackend> { below }
    /// fn watched(nic: Nic) -> Nic {
    ///     nic.layer(capture).never_blocks()
    /// }
    /// ```
    #[must_use]
    pub fn layer(self, make: impl FnMut(Box<dyn NicBackend>) -> Box<dyn NicBackend> + Send + 'static) -> Self {
        Self { blocks: true, ..self.quick_layer(make) }
    }

    /// As [`layer`](Self::layer), for one that never blocks.
    #[cfg_attr(not(feature = "metadata"), allow(dead_code, reason = "the layers that need it are features"))]
    pub(crate) fn quick_layer(
        mut self,
        make: impl FnMut(Box<dyn NicBackend>) -> Box<dyn NicBackend> + Send + 'static,
    ) -> Self {
        self.layers.push(Box::new(make));
        self
    }

    /// Vouches that the [backend](Self::backend) never blocks, so that it may share the VM's own I/O thread. A card on a TAP
    /// device never blocks, so this has no effect on one without [layers](Self::layer).
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

    /// Sets how many pairs of queues the guest's driver may use, 1 to 16, each of which is one to receive and one to send. With
    /// several, the guest's CPUs need not wait for each other to send a frame, and each takes the frames of its own flows. One I/O
    /// thread serves all queues of a card, in turn.
    ///
    /// By default, a card of a VM has one pair for each of its vCPUs, but no more than four, if it is on a TAP device that was made
    /// with several queues (`ip tuntap add ... multi_queue`). Otherwise it has one. A card on descriptors or backends has as many as
    /// it was given, and this must be the same number.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.config.queues = Some(queues);
        self
    }

    /// Limits the frames that the guest gets, on all its queues together. By default nothing is limited.
    /// [`NicHandle::set_receive_limits`] changes the limits while the VM runs.
    ///
    /// While the limits allow no frame, none is taken from the TAP device, whose queue drops what it has no room for, as on a real link;
    /// a backend of your own is not asked for any. The card uses no CPU meanwhile, and holds no other device up.
    ///
    /// ```no_run
    /// use vmcell::{Limits, Nic, RateLimit};
    ///
    /// // 100 Mbit/s each way, of which 1 MiB at once.
    /// let limits = Limits::new().bytes(RateLimit::per_second(100_000_000 / 8).burst(1 << 20));
    /// let nic = Nic::tap("tap0")?.receive_limits(limits).send_limits(limits);
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    #[must_use]
    pub fn receive_limits(mut self, limits: Limits) -> Self {
        self.config.receive_limits = limits;
        self
    }

    /// Limits the frames that the guest sends, on all its queues together. By default nothing is limited.
    /// [`NicHandle::set_send_limits`] changes the limits while the VM runs.
    ///
    /// A frame that exceeds the limits waits, and with it those behind it: a guest that sends more notices that its queue is full. A
    /// pause, a reset, or the end of the VM does not wait for it.
    #[must_use]
    pub fn send_limits(mut self, limits: Limits) -> Self {
        self.config.send_limits = limits;
        self
    }

    /// Has the frames that the guest gets keep to the limits of a group, besides the card's own.
    #[must_use]
    pub fn receive_group(mut self, group: &LimitGroup) -> Self {
        self.receive_group = Some(group.clone());
        self
    }

    /// Has the frames that the guest sends keep to the limits of a group, besides the card's own. It may be the group for those that the
    /// guest [gets](Self::receive_group).
    #[must_use]
    pub fn send_group(mut self, group: &LimitGroup) -> Self {
        self.send_group = Some(group.clone());
        self
    }

    /// The number of queues, if nothing was said about it and the TAP device has several.
    pub(crate) fn default_queues(mut self, queues: u16) -> Self {
        self.default_queues = queues;
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
    /// [`ErrorKind::InvalidConfig`] for an address that is not unicast, an MTU out of range, or a number of queues that is out of
    /// range or not that of the descriptors or backends; [`ErrorKind::Network`] if the TAP device has fewer queues than were asked
    /// for, or is in use.
    pub fn into_device(self) -> Result<Box<dyn VirtioDevice>> {
        Ok(Box::new(self.build()?))
    }

    /// Attaches all queues, so that the name of the TAP device is not needed any more.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] if the TAP device has fewer queues than were asked for, or is in use.
    pub(crate) fn opened(mut self) -> Result<Self> {
        self.config.validate()?;
        let backends = self.wire.into_backends(self.config.queues, self.default_queues)?;
        self.wire = Wire::Backends(backends);
        Ok(self)
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
        let described =
            [(&self.config.receive_group, &self.receive_group), (&self.config.send_group, &self.send_group)];
        if let Some(name) = described.into_iter().find_map(|(name, group)| name.as_ref().filter(|_| group.is_none())) {
            let message = format!("the card is to be in the limit group {name:?}, which only a VM's description has");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mac = match self.config.mac {
            Some(mac) => mac,
            None => random_mac()?,
        };
        let mut backends = self.wire.into_backends(self.config.queues, self.default_queues)?;
        for mut layer in self.layers {
            backends = backends.into_iter().map(&mut layer).collect();
        }
        self.handle.receive_limits().begin_with(self.config.receive_limits)?;
        self.handle.send_limits().begin_with(self.config.send_limits)?;
        let net = Net::new(backends, mac, self.config.mtu, self.handle)?;
        Ok(net.in_groups(self.receive_group.as_ref(), self.send_group))
    }
}

impl Wire {
    fn into_backends(self, queues: Option<u16>, default_queues: u16) -> Result<Vec<Box<dyn NicBackend>>> {
        match self {
            Self::Tap(device) => {
                let default_queues = if device.is_multi_queue() { default_queues } else { 1 };
                device.attach_all(queues.unwrap_or(default_queues)).map(TapBackend::all)
            }
            Self::Backends(backends) => {
                let given = backends.len();
                check_queue_count(given)?;
                if let Some(queues) = queues.filter(|queues| usize::from(*queues) != given) {
                    let message =
                        format!("a network card with {queues} queues was asked for, it was given what makes {given}");
                    return Err(Error::new(ErrorKind::InvalidConfig, message));
                }
                Ok(backends)
            }
        }
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
