//! A service as the host program holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::address::MachineAddress;
use super::super::view::{Shared, View};
use super::balancer::{Balancer, Call};
use super::keeper::Keeper;
use super::limits::{MOST_SERVICES, ServiceLimits};
use super::rounds::{refuse_all, round};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::Meter;
use crate::sys::lock;

type OnDemand = dyn Fn(&Demand) -> Result<()> + Send + Sync;

/// Describes a [`Service`].
///
/// ```
/// use std::time::Duration;
///
/// use vmcell::network::ServiceConfig;
///
/// let config = ServiceConfig::new().name("web").limits(20, 25).hold_time(Duration::from_secs(10));
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServiceConfig {
    limits: ServiceLimits,
    name: Option<String>,
    on_demand: Option<Arc<OnDemand>>,
}

/// An address that stands for several machines, its *members*. A flow to it goes to the member that has the least flows of the service, and
/// stays there. A clone is the same service; it goes with the last clone, and its flows end then.
///
/// A service carries TCP, UDP and echo requests. A [rule](super::super::Rule) to its address says who may use it. Its members need none for
/// that: a client speaks with the address of the service alone.
///
/// Any thread may use it, and no call blocks for long. When the last clone is dropped, what waits for a member is refused.
///
/// ```no_run
/// use vmcell::network::{Network, NetworkConfig, Rule, ServiceConfig, Subnet};
/// use vmcell::{Boot, Vm};
///
/// # fn main() -> vmcell::Result<()> {
/// let subnet = Subnet::new([0xac, 0x17, 0x05], 7);
/// let network = Network::new(NetworkConfig::new(subnet))?;
/// let (web, machine) = (subnet.service(1), subnet.machine(1, 1)?);
/// network.set_rules(&[Rule::allow().to(web.into()).tcp(80..=80)])?;
/// let starts = network.clone();
/// let config = ServiceConfig::new().name("web").on_demand(move |demand| {
///     let nic = starts.port(machine)?.into_nic();
///     let vm = Vm::builder().boot(Boot::linux("vmlinuz")).nic(nic).build()?;
///     vm.start()?;
///     // ... and waits until its server is up, and keeps the VM.
///     demand.service().add(machine)
/// });
/// let service = network.service(web, config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    balancer: Arc<Balancer>,
    shared: Arc<Shared>,
}

/// Why the host program is [called](ServiceConfig::on_demand).
#[derive(Debug)]
pub struct Demand {
    service: Service,
    member: Option<MachineAddress>,
}

/// A member of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceMember {
    /// The machine.
    pub machine: MachineAddress,
    /// Whether it hears: its driver is up and has offered buffers, and it is not paused.
    pub runs: bool,
    /// Whether it gets no new flows.
    pub draining: bool,
    /// How many flows of the service it has now. One that its client has left without a word counts until it is forgotten.
    pub flows: usize,
    /// How many it has been given.
    pub flows_total: u64,
}

impl ServiceConfig {
    /// A service with the defaults: without a name, and with nobody who starts members.
    pub const fn new() -> Self {
        Self { limits: ServiceLimits::DEFAULT, name: None, on_demand: None }
    }

    /// Gives it a name: the network's DNS server has its address under `NAME.internal`, whether members run or not.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sets how many flows a member is to have at most, and how many it has at the very most, each 1 to 65536. The default is 1024 for
    /// both. Above `soft`, the host program is [asked](Self::on_demand) for another member; a flow that finds all members at `hard` waits for
    /// one, or is refused if nobody is asked.
    pub const fn limits(mut self, soft: usize, hard: usize) -> Self {
        (self.limits.soft, self.limits.hard) = (soft, hard);
        self
    }

    /// Has the host program called when a member is wanted: a packet has come for which no member runs or has room, or one whose member
    /// [does not run](Demand::member), or all members that run have more flows than the soft limit. Meanwhile, the packet is held. When a
    /// member runs it goes on its way, and the client has noticed nothing but the time.
    ///
    /// `call` starts or resumes a VM, [adds](Service::add) it once its server is up, and returns when it likes: on a thread of its own, one
    /// call at a time for a service. If it returns `Ok`, a member is there, or is on its way. If it gives an error or panics, there will be
    /// none: what waits is refused, and so is what comes in the next [interval](Self::call_interval). Nobody is told what the error says, so log it
    /// in `call`. Dropping the service does not wait for it.
    pub fn on_demand(mut self, call: impl Fn(&Demand) -> Result<()> + Send + Sync + 'static) -> Self {
        self.on_demand = Some(Arc::new(call));
        self
    }

    /// Sets how long after the end of a call there is no other one: 10 ms to 1 hour. The default is 1 second.
    pub const fn call_interval(mut self, interval: Duration) -> Self {
        self.limits.interval = interval;
        self
    }

    /// Sets how long a packet waits for a member before it is refused: 100 ms to 5 minutes. The default is 30 seconds.
    pub const fn hold_time(mut self, time: Duration) -> Self {
        self.limits.hold_time = time;
        self
    }

    /// Sets how many packets may wait, 1 to 4096, and how many bytes, 2 KiB to 16 MiB; a packet takes 128 bytes more than it is long. The
    /// defaults are 256 packets and 256 KiB. Of a TCP connection, one packet waits. What finds no room is refused; if it belongs to a TCP
    /// connection that has its member, it is dropped, since its sender says it again. See also
    /// [`NetworkConfig::held_bytes`](super::super::NetworkConfig::held_bytes).
    pub const fn held(mut self, packets: usize, bytes: usize) -> Self {
        (self.limits.packets, self.limits.bytes) = (packets, bytes);
        self
    }

    /// What [`limits`](Self::limits) were set, for who sets one of them and leaves the other.
    #[cfg(any(test, feature = "capi"))]
    pub(crate) const fn flow_limits(&self) -> (usize, usize) {
        (self.limits.soft, self.limits.hard)
    }

    /// What was set by [`held`](Self::held), in the same way.
    #[cfg(any(test, feature = "capi"))]
    pub(crate) const fn held_limits(&self) -> (usize, usize) {
        (self.limits.packets, self.limits.bytes)
    }
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Service {
    pub(in crate::network) fn new(shared: &Arc<Shared>, address: Ipv6Addr, config: ServiceConfig) -> Result<Self> {
        let refused = |message| Error::new(ErrorKind::InvalidConfig, message);
        let ServiceConfig { limits, name, on_demand } = config;
        limits.check()?;
        let subnet = shared.config.subnet;
        if subnet.service_number(address).is_none() {
            let message = format!(
                "a service at {address} was asked for in the network {subnet}, allowed are {}",
                subnet.services()
            );
            return Err(refused(message));
        }
        start_keeper(shared)?;
        let inner = Arc::new_cyclic(|inner| {
            let call = on_demand.map(|on_demand| caller(Weak::clone(inner), on_demand));
            let balancer = Arc::new(Balancer::new(address, limits, call, &shared.held, &shared.bell));
            Inner { balancer, shared: Arc::clone(shared) }
        });
        shared.change(|table| {
            if table.services.contains_key(&address) {
                return Err(refused(format!("the address {address} of the network {subnet} is in use by a service")));
            }
            if table.services.len() >= MOST_SERVICES {
                return Err(refused(format!("the network {subnet} has {MOST_SERVICES} services, which is the limit")));
            }
            if let Some(name) = &name {
                Arc::make_mut(&mut table.names).add_service(name, address)?;
            }
            Arc::make_mut(&mut table.services).insert(address, Arc::clone(&inner.balancer));
            Ok(())
        })?;
        Ok(Self { inner })
    }

    /// Returns its address.
    pub fn address(&self) -> Ipv6Addr {
        self.inner.balancer.address
    }

    /// Makes a machine a member, or, if it is [draining](Self::drain), has it get new flows again. It gets flows as soon as it hears: its
    /// driver is up and has offered buffers. So add one that boots when its server is up, or else its first clients find it closed. A member
    /// whose port is dropped, which the end of its VM does, is none any more.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a machine that has no port of this network or is a member already, and for more than 256 members.
    pub fn add(&self, machine: MachineAddress) -> Result<()> {
        let Inner { balancer, shared } = &*self.inner;
        // Under the lock of the table, so that the port does not go meanwhile and leaves a member behind.
        shared.change(|table| {
            let port = table.ports.get(machine.ip()).ok_or_else(|| {
                let message =
                    format!("the machine {machine} was to be a member of a service, and has no port in the network");
                Error::new(ErrorKind::InvalidConfig, message)
            })?;
            balancer.add(machine, &port.pulse)
        })
    }

    /// Makes a machine of another host a member, one without a port in this process, or, if it is [draining](Self::drain), has it get new flows
    /// again. It gets flows as long as an [uplink](super::super::Uplink) leads to its address, but none that come by that uplink.
    ///
    /// Nobody here knows whether it runs: add it while its server is up, and [remove](Self::remove) it when that, its host or the way there is
    /// gone. Its host sees the client's own address as the source and the member's as the destination, so a rule there has to let that flow begin.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a machine of another network, one that has a port of this network or is a member already, and for more
    /// than 256 members.
    pub fn add_remote(&self, machine: MachineAddress) -> Result<()> {
        let Inner { balancer, shared } = &*self.inner;
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        let subnet = shared.config.subnet;
        if machine.subnet() != subnet {
            return refused(format!("the machine {machine} was to be a member of a service in the network {subnet}"));
        }
        shared.change(|table| {
            if table.ports.get(machine.ip()).is_some() {
                return refused(format!(
                    "the machine {machine} was to be a member of a service as one of another host, and has a port in the network"
                ));
            }
            balancer.add_remote(machine)
        })
    }

    /// Gives a member no new flows; those that it has go on. Says whether it is a member.
    pub fn drain(&self, machine: MachineAddress) -> bool {
        self.inner.balancer.drain(machine)
    }

    /// Takes a member out. Its flows end: a client that goes on with a connection hears that it is reset. Says whether it was a member.
    pub fn remove(&self, machine: MachineAddress) -> bool {
        self.inner.balancer.remove(machine)
    }

    /// Returns its members, in no order.
    pub fn members(&self) -> Vec<ServiceMember> {
        let mut members = Vec::new();
        self.inner.balancer.each_member(|member| {
            members.push(ServiceMember {
                machine: member.address(),
                runs: member.runs(),
                draining: member.is_draining(),
                flows: member.open(),
                flows_total: member.begun(),
            });
        });
        members
    }

    /// Returns how many packets wait for a member now.
    pub fn waiting(&self) -> usize {
        self.inner.balancer.held.len()
    }

    /// Returns its counters by their names: `service_flows` that were given to members; packets `service_held`, `service_replayed` of
    /// these, and `service_refused` of these; `service_calls` of the host program, and `service_calls_refused` by it. Packets that were refused
    /// at once are among those [dropped](super::super::Network::dropped) as [`NoMember`](super::super::Refusal::NoMember).
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let mut meter = Meter::new();
        self.inner.balancer.counters.tell(&mut meter);
        meter.read()
    }
}

impl Demand {
    /// Returns the service that wants a member.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Returns the member that is wanted, because it has a flow for which a packet has come, and does not run: it is paused, or its driver is
    /// not up. `None` if any member will do.
    pub fn member(&self) -> Option<MachineAddress> {
        self.member
    }
}

/// Starts the thread that looks after the services of a network, if there is none.
fn start_keeper(shared: &Arc<Shared>) -> Result<()> {
    let mut keeper = lock(&shared.keeper);
    if keeper.is_none() {
        let network = Arc::downgrade(shared);
        let mut swept = None;
        *keeper = Some(Keeper::start(&shared.bell, move || {
            network.upgrade().map_or(Duration::ZERO, |shared| round(&View::new(&shared), &mut swept))
        })?);
    }
    Ok(())
}

/// What calls the host program.
fn caller(inner: Weak<Inner>, on_demand: Arc<OnDemand>) -> Arc<Call> {
    Arc::new(move |member| {
        let gone = || Error::new(ErrorKind::InvalidState, "the service is gone");
        let service = Service { inner: inner.upgrade().ok_or_else(gone)? };
        on_demand(&Demand { service, member })
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.shared.change(|table| {
            // One that was refused has never been in there.
            let is_own = table.services.get(&self.balancer.address).is_some_and(|own| Arc::ptr_eq(own, &self.balancer));
            if is_own {
                Arc::make_mut(&mut table.services).remove(&self.balancer.address);
                Arc::make_mut(&mut table.names).remove_service(self.balancer.address);
            }
            Ok(())
        });
        self.balancer.close();
        refuse_all(&View::new(&self.shared), &self.balancer);
    }
}

impl fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, name, on_demand } = self;
        let mut shown = f.debug_struct("ServiceConfig");
        shown.field("name", name).field("limits", limits).field("on_demand", &on_demand.is_some()).finish()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("address", &self.address()).finish_non_exhaustive()
    }
}
