//! A network, as the host program has it.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::{MachineAddress, Subnet};
use super::flows::Flows;
use super::join::Join;
use super::outbox::Outbox;
use super::party::{PortEnd, UplinkEnd};
use super::policy::RuleCount;
use super::port::Port;
use super::reason::{Refusal, Refusals};
use super::rule::Rule;
use super::service::{Service, ServiceConfig};
use super::settings::NetworkConfig;
use super::uplink::Uplink;
use super::view::{Shared, View};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::Mutex;

/// An uplink has room for so many packets at the most.
const MOST_PACKETS: usize = 65536;

/// A private network of machines, in this process. A clone is the same network; it goes with the last clone, port and uplink.
///
/// Nothing passes until [rules](Self::set_rules) allow it, in either direction. Any thread may use it, and no call blocks for long.
///
/// ```no_run
/// use vmcell::network::{Network, NetworkConfig, Rule, Subnet};
/// use vmcell::{Boot, Vm};
///
/// # fn main() -> vmcell::Result<()> {
/// let subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// let network = Network::new(NetworkConfig::new(subnet))?;
/// network.set_rules(&[Rule::allow().tcp(80..=80), Rule::allow().icmp()])?;
/// let mut vms = Vec::new();
/// for machine in 1..=2 {
///     let port = network.port(subnet.machine(1, machine)?)?;
///     println!("machine {machine} has {}", port.address());
///     vms.push(Vm::builder().boot(Boot::linux("vmlinuz")).nic(port.into_nic()).build()?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

impl Network {
    /// Makes a network without machines, in which nothing is allowed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a setting that is out of range.
    pub fn new(config: NetworkConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { shared: Arc::new(Shared::new(config)) })
    }

    /// Returns the addresses of the network.
    pub fn subnet(&self) -> Subnet {
        self.shared.config.subnet
    }

    /// Makes the port of a machine, which has its address until it is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the address is of another network or in use, or if the network has as many ports as it may.
    pub fn port(&self, address: MachineAddress) -> Result<Port> {
        self.port_for_clone(address, address)
    }

    /// Makes the port of a machine whose guest takes itself for another one, `source`: a fork of that machine, which keeps the MAC address and
    /// the IPv6 address that its kernel had at the snapshot. So forks are on the network beside each other and beside their source, and none of
    /// them has to be told.
    ///
    /// The network knows the machine by `address` alone: its rules, names, flows and services have that. The switch replaces `source` by it
    /// in what the guest sends, and it by `source` in what the guest gets, also in the packet that an ICMPv6 error is about, and brings the
    /// checksum up to date. What other packets say of addresses in their data stays. The guest and the machine `source` cannot reach each
    /// other, since both take that address for their own.
    ///
    /// # Errors
    /// As [`port`](Self::port), and [`ErrorKind::InvalidConfig`] if `source` is of another network.
    pub fn port_for_clone(&self, address: MachineAddress, source: MachineAddress) -> Result<Port> {
        let refused = |message| Error::new(ErrorKind::InvalidConfig, message);
        if let Some(foreign) = [address, source].into_iter().find(|machine| machine.subnet() != self.subnet()) {
            return Err(refused(format!("a port for {foreign} was asked for in the network {}", self.subnet())));
        }
        let config = &self.shared.config;
        let end = Arc::new(PortEnd::new(address, source, config.flows, self.shared.time(Instant::now())));
        self.shared.change(|table| {
            if table.ports.get(address.ip()).is_some() {
                return Err(refused(format!("the address {address} of the network {} is in use", self.subnet())));
            }
            if table.ports.len() >= config.ports {
                let message = format!("the network {} has {} ports, which is the limit", self.subnet(), config.ports);
                return Err(refused(message));
            }
            table.ports.insert(&end);
            Ok(())
        })?;
        Ok(Port::new(View::new(&self.shared), end))
    }

    /// Joins a tunnel to the network. Packets that come out of it are no longer than `mtu`, 1280 bytes or more with the IPv6 header; guests
    /// that send longer ones are told. At most `packets` of them wait, 1 to 65536. `wake` is [called](Uplink#threads) when there are some.
    ///
    /// Nothing goes there until [`Uplink::set_routes`] says what lies behind it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a number that is out of range.
    pub fn uplink(&self, mtu: u16, packets: usize, wake: impl Fn() + Send + Sync + 'static) -> Result<Uplink> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        if mtu < 1280 {
            return refused(format!("an uplink with an MTU of {mtu} was asked for, allowed are 1280 to 65535"));
        }
        if !(1..=MOST_PACKETS).contains(&packets) {
            return refused(format!("an uplink for {packets} packets was asked for, allowed are 1 to {MOST_PACKETS}"));
        }
        let outbox = Arc::new(Outbox::new(packets, wake));
        let flows = Mutex::new(Flows::new(self.shared.config.flows));
        let end = UplinkEnd { outbox: Arc::clone(&outbox), mtu, flows, refusals: Refusals::default() };
        Ok(Uplink::new(outbox, mtu, Box::new(Join::new(View::new(&self.shared), Arc::new(end)))))
    }

    /// Makes a service, whose address stands for several machines until the last clone of the service is dropped: one of
    /// [`Subnet::services`]. Nothing goes to it unless a [rule](Self::set_rules) allows it to its address.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for an address that is no service's of this network or is in use, for a name that is none or is
    /// somebody else's, for a setting that is out of range, and for more than 1024 services; [`ErrorKind::Host`] if the host gives no thread.
    pub fn service(&self, address: Ipv6Addr, config: ServiceConfig) -> Result<Service> {
        Service::new(&self.shared, address, config)
    }

    /// Returns how long ago the last packet was sent to a machine or by it, rounded to milliseconds, or, if there was none, how long ago its
    /// port was made; `None` if it has no port. Its questions for names count; neighbour discovery does not, nor does what no rule
    /// allows, so a machine that nobody speaks with is idle. Never blocks for long.
    pub fn idle(&self, machine: MachineAddress) -> Option<Duration> {
        let now = self.shared.time(Instant::now());
        self.shared.table().ports.get(machine.ip()).map(|port| port.pulse.idle(now))
    }

    /// Sets the rules, at most 1024, in place of those before. They hold for every packet from now on, as soon as the threads that carry
    /// packets have seen them: flows that they do not allow end, and those that they still allow go on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if they are too many, or one fits nothing. Then those before stay.
    pub fn set_rules(&self, rules: &[Rule]) -> Result<()> {
        self.shared.change(|table| {
            table.policy = Arc::new(table.policy.with(rules)?);
            Ok(())
        })
    }

    /// Returns how often each rule has decided.
    pub fn rule_counts(&self) -> Vec<RuleCount> {
        self.shared.table().policy.counts()
    }

    /// Returns how many frames and packets were dropped for this reason. The ports' own counts are among the
    /// [counters of their cards](crate::NicHandle::backend_counters), as `network_dropped_` and the reason's [name](Refusal::name).
    pub fn dropped(&self, reason: Refusal) -> u64 {
        self.shared.refusals.get(reason)
    }

    /// Returns the machines that have ports now, in no order.
    pub fn machines(&self) -> Vec<MachineAddress> {
        self.shared.table().ports.iter().map(|port| port.address).collect()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
