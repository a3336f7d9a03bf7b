//! The settings of a network, and their bounds.

use std::time::Duration;

use super::address::Subnet;
use crate::error::{Error, ErrorKind, Result};

/// Describes a network.
///
/// ```
/// use vmcell::network::{Network, NetworkConfig, Subnet};
///
/// # fn main() -> vmcell::Result<()> {
/// let network = Network::new(NetworkConfig::new(Subnet::new([0xac, 0x17, 0x05], 7)).mtu(9000))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    pub(super) subnet: Subnet,
    pub(super) mtu: u16,
    pub(super) ports: usize,
    pub(super) flows: FlowLimits,
    pub(super) held_bytes: usize,
}

/// What is remembered of the flows of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowLimits {
    pub(super) most: usize,
    pub(super) tcp_idle: Duration,
    pub(super) idle: Duration,
}

impl NetworkConfig {
    /// A network with these addresses, and the defaults.
    pub const fn new(subnet: Subnet) -> Self {
        let (tcp_idle, idle) = (Duration::from_secs(7200), Duration::from_secs(120));
        let flows = FlowLimits { most: 4096, tcp_idle, idle };
        Self { subnet, mtu: 1420, ports: 4096, flows, held_bytes: 8 << 20 }
    }

    /// Sets how long a packet of the network may be, in bytes with its IPv6 header: 1280 to 65535. The default is 1420, which fits
    /// through WireGuard on a link of 1500. Guests are told by router advertisement, and their cards.
    #[must_use]
    pub const fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = bytes;
        self
    }

    /// Sets how many ports the network may have at once: 1 to 65536. The default is 4096.
    #[must_use]
    pub const fn ports(mut self, most: usize) -> Self {
        self.ports = most;
        self
    }

    /// Sets how many flows are remembered that one machine, or what lies behind one uplink, has begun: a power of two from 64 to 16384.
    /// The default is 4096. A flow that finds no room is refused and counted, and harms no other machine, but those behind the same
    /// uplink, which have one table together: give peers that do not trust each other a tunnel each. A flow takes 88 bytes of the host's
    /// memory, and one to a [service](super::Service) twice as much and the room of two. A machine that begins few flows never takes it.
    #[must_use]
    pub const fn flows(mut self, most: usize) -> Self {
        self.flows.most = most;
        self
    }

    /// Sets after how long without a packet a flow is forgotten, and its answers do not pass any more: a TCP connection, and anything
    /// else, each 1 second to 7 days. The defaults are two hours and two minutes. A flow that was not answered yet is kept for 30 seconds
    /// at most, and a connection that has ended for 10.
    #[must_use]
    pub const fn flow_idle(mut self, tcp: Duration, other: Duration) -> Self {
        (self.flows.tcp_idle, self.flows.idle) = (tcp, other);
        self
    }

    /// What [`flow_idle`](Self::flow_idle) has set, for who sets one of them and leaves the other.
    #[cfg(any(test, feature = "capi"))]
    pub(crate) const fn idle_limits(&self) -> (Duration, Duration) {
        (self.flows.tcp_idle, self.flows.idle)
    }

    /// Sets how many bytes of packets may wait for members of all [services](super::Service) together: 64 KiB to 1 GiB. The default is 8
    /// MiB. A packet takes 128 bytes more than it is long.
    #[must_use]
    pub const fn held_bytes(mut self, most: usize) -> Self {
        self.held_bytes = most;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.mtu < 1280 {
            return refused(format!("an MTU of {} was asked for, allowed are 1280 to 65535", self.mtu));
        }
        if !(1..=65536).contains(&self.ports) {
            return refused(format!("a network of {} ports was asked for, allowed are 1 to 65536", self.ports));
        }
        let most = self.flows.most;
        if !most.is_power_of_two() || !(64..=16384).contains(&most) {
            return refused(format!(
                "{most} flows a machine were asked for, allowed are the powers of two from 64 to 16384"
            ));
        }
        if !(64 << 10..=1 << 30).contains(&self.held_bytes) {
            return refused(format!(
                "{} bytes for packets that wait for services were asked for, allowed are 64 KiB to 1 GiB",
                self.held_bytes
            ));
        }
        for idle in [self.flows.tcp_idle, self.flows.idle] {
            if !(Duration::from_secs(1)..=Duration::from_secs(7 * 86400)).contains(&idle) {
                return refused(format!(
                    "flows that idle for {idle:?} were to be kept, allowed are 1 second to 7 days"
                ));
            }
        }
        Ok(())
    }
}
