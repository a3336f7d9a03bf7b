//! Who takes part in a network, and by which rules, as each thread that carries packets sees it.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flows::{Flows, Known, Side};
use super::names::Names;
use super::packet::{Flow, ICMP, Kind, Packet, RST};
use super::party::{Destination, PortEnd, UplinkEnd};
use super::policy::Policy;
use super::ports::Ports;
use super::prefix::Prefix;
use super::reason::{Refusal, Refusals};
use super::service::balancer::Balancer;
use super::service::held::Total;
use super::service::keeper::{Bell, Keeper};
use super::settings::NetworkConfig;
use super::translate::Translation;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicU64, Ordering};

/// What lies behind one uplink is described by no more prefixes.
const MOST_ROUTES: usize = 4096;

/// A network, as all who take part have it.
pub(super) struct Shared {
    pub(super) config: NetworkConfig,
    /// Replaced as a whole by each change. The lock is held for a few instructions at a time, since the cards' threads take it after each.
    table: Mutex<Arc<Table>>,
    /// Whoever makes a change has this meanwhile. A packet never waits for it.
    changing: Mutex<()>,
    /// Counts the changes.
    version: AtomicU64,
    pub(super) refusals: Refusals,
    epoch: Instant,
    /// Wakes the thread that looks after services, which there is once there was one.
    pub(super) bell: Arc<Bell>,
    pub(super) keeper: Mutex<Option<Keeper>>,
    /// What waits for members of services.
    pub(super) held: Arc<Total>,
}

/// Who takes part, and what may pass. A change copies what it changes, and the rest is shared with the table before.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) ports: Ports,
    /// The longest prefixes first.
    routes: Arc<Vec<(Prefix, Arc<UplinkEnd>)>>,
    pub(super) policy: Arc<Policy>,
    pub(super) names: Arc<Names>,
    pub(super) services: Arc<HashMap<Ipv6Addr, Arc<Balancer>>>,
}

/// The network as one card or uplink sees it, on its own thread.
pub(super) struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) table: Arc<Table>,
    version: u64,
}

impl Shared {
    pub(super) fn new(config: NetworkConfig) -> Self {
        let (table, changing, version, refusals) = Default::default();
        let held = Arc::new(Total::new(config.held_bytes));
        let (epoch, bell, keeper) = (Instant::now(), Arc::default(), Mutex::default());
        Self { config, table, changing, version, refusals, epoch, bell, keeper, held }
    }

    /// As it is now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&lock(&self.table))
    }

    /// Changes who takes part, or what may pass; nothing if that is refused.
    pub(super) fn change(&self, change: impl FnOnce(&mut Table) -> Result<()>) -> Result<()> {
        let changing = lock(&self.changing);
        let mut table = Table::clone(&self.table());
        change(&mut table)?;
        let before = std::mem::replace(&mut *lock(&self.table), Arc::new(table));
        self.version.fetch_add(1, Ordering::SeqCst);
        drop(changing);
        // It may be the last of it, which takes a while to go.
        drop(before);
        Ok(())
    }

    pub(super) fn remove_port(&self, end: &Arc<PortEnd>) {
        let _ = self.change(|table| {
            table.ports.remove(end.address.ip());
            table.services.values().for_each(|service| service.remove_port(&end.pulse));
            if table.names.has(end) {
                Arc::make_mut(&mut table.names).remove(end);
            }
            Ok(())
        });
    }

    /// What lies behind an uplink from now on.
    pub(super) fn set_routes(&self, end: &Arc<UplinkEnd>, routes: &[Prefix]) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        if routes.len() > MOST_ROUTES {
            return refused(format!("{} prefixes were given for one uplink, allowed are {MOST_ROUTES}", routes.len()));
        }
        self.change(|table| {
            let all = Arc::make_mut(&mut table.routes);
            all.retain(|(_, other)| !Arc::ptr_eq(other, end));
            for prefix in routes {
                if let Some((taken, _)) = all.iter().find(|(taken, _)| taken.overlaps(*prefix)) {
                    return refused(format!("the prefix {prefix} overlaps {taken}, which lies behind another uplink"));
                }
            }
            all.extend(routes.iter().map(|prefix| (*prefix, Arc::clone(end))));
            all.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.bits()));
            Ok(())
        })
    }

    /// The time since the network was made.
    pub(super) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

impl View {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let version = shared.version.load(Ordering::SeqCst);
        Self { shared: Arc::clone(shared), table: shared.table(), version }
    }

    /// Looks whether something has changed. What changed before the call counts after it.
    pub(super) fn refresh(&mut self) {
        let version = self.shared.version.load(Ordering::SeqCst);
        if version == self.version {
            return;
        }
        // Not under the lock: an uplink may go with the last table that has it, and what its owner gave it, which may ask for the lock.
        self.table = self.shared.table();
        self.version = version;
    }

    /// Who has an address.
    pub(super) fn find(&self, address: Ipv6Addr) -> Option<Destination> {
        if let Some(port) = self.table.ports.get(address) {
            return Some(Destination::Port(Arc::clone(port)));
        }
        if let Some(service) = self.service(address) {
            return Some(Destination::Service(Arc::clone(service)));
        }
        self.route(address).map(|uplink| Destination::Uplink(Arc::clone(uplink)))
    }

    /// What lies behind uplinks; one uplink may come several times.
    pub(super) fn uplinks(&self) -> impl Iterator<Item = &Arc<UplinkEnd>> {
        let mut last = std::ptr::null();
        self.table
            .routes
            .iter()
            .map(|(_, uplink)| uplink)
            .filter(move |uplink| !std::ptr::eq(std::mem::replace(&mut last, Arc::as_ptr(uplink)), Arc::as_ptr(uplink)))
    }

    /// Which service has an address.
    fn service(&self, address: Ipv6Addr) -> Option<&Arc<Balancer>> {
        self.shared.config.subnet.service_number(address)?;
        self.table.services.get(&address)
    }

    /// Behind which uplink an address lies: none behind which there is nobody, or the network itself, whatever its prefixes are.
    pub(super) fn uplink_of(&self, address: Ipv6Addr) -> Option<&Arc<UplinkEnd>> {
        if self.service(address).is_some() { None } else { self.route(address) }
    }

    /// Where an address leads that no service has. One that a service may have leads to an uplink only if that is meant: nobody is to answer in
    /// the name of a service that is not there by having been given everything.
    fn route(&self, address: Ipv6Addr) -> Option<&Arc<UplinkEnd>> {
        let subnet = self.shared.config.subnet;
        if !travels(address) || address == subnet.dns() {
            return None;
        }
        let is_service = subnet.service_number(address).is_some();
        let leads = |prefix: &Prefix| prefix.contains(address) && !(is_service && prefix.contains_all(subnet.prefix()));
        let mut routes = self.table.routes.iter();
        routes.find(|(prefix, _)| leads(prefix)).map(|(_, uplink)| uplink)
    }

    /// Whether a packet between machines may pass, and by which addresses it goes on; it is counted.
    pub(super) fn admit(
        &self,
        packet: &Packet,
        from: &Mutex<Flows>,
        to: &Mutex<Flows>,
        now: Duration,
    ) -> std::result::Result<Translation, Refusal> {
        let policy = &self.table.policy;
        let (flow, back) = (packet.flow, packet.flow.reversed());
        match packet.kind {
            Kind::Error(about) => return self.admit_error(packet, &about, from, to, now),
            Kind::EchoReply => {
                return match lock(to).pass(policy, &back, packet, Side::Other, now) {
                    Known::Yes => Ok(Translation::NONE),
                    Known::OfService(service) => Ok(Translation::from(service)),
                    Known::No => Err(Refusal::Policy),
                };
            }
            Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest | Kind::Neighbour(_) | Kind::Other => {}
        }
        if lock(from).pass(policy, &flow, packet, Side::First, now) == Known::Yes {
            return Ok(Translation::NONE);
        }
        if flow.protocol != ICMP {
            match lock(to).pass(policy, &back, packet, Side::Other, now) {
                Known::Yes => return Ok(Translation::NONE),
                Known::OfService(service) => return Ok(Translation::from(service)),
                Known::No => {}
            }
        }
        if matches!(packet.kind, Kind::Tcp(flags) if flags & RST != 0) {
            return Err(Refusal::Policy);
        }
        let rule = policy.admit(&flow).ok_or(Refusal::Policy)?;
        lock(from).begin(policy, packet, rule, now)?;
        Ok(Translation::NONE)
    }

    /// An error goes to whoever has sent what it is about, and comes from there, or from the way there.
    fn admit_error(
        &self,
        packet: &Packet,
        about: &Flow,
        from: &Mutex<Flows>,
        to: &Mutex<Flows>,
        now: Duration,
    ) -> std::result::Result<Translation, Refusal> {
        let policy = &self.table.policy;
        if about.source != packet.flow.destination || !self.leads_to(about.destination, from) {
            return Err(Refusal::Policy);
        }
        match lock(to).knows(policy, about, now) {
            Known::Yes => return Ok(Translation::NONE),
            Known::OfService(service) => {
                // Members are machines, which nothing lies in front of.
                let (source, about_destination) = (Some(service), Some(service));
                return Ok(Translation { source, about_destination, ..Translation::NONE });
            }
            Known::No => {}
        }
        match lock(from).knows(policy, &about.reversed(), now) {
            Known::Yes => Ok(Translation::NONE),
            Known::OfService(_) | Known::No => Err(Refusal::Policy),
        }
    }

    /// Whether packets to an address go to the one who has begun these flows.
    pub(super) fn leads_to(&self, address: Ipv6Addr, flows: &Mutex<Flows>) -> bool {
        self.find(address).is_some_and(|to| to.flows().is_some_and(|own| std::ptr::eq(own, flows)))
    }
}

/// Whether packets from and to an address leave their link (RFC 4291, 2.4).
fn travels(address: Ipv6Addr) -> bool {
    let stays = address.is_unicast_link_local() || address.is_loopback() || address.is_unspecified();
    !stays && !address.is_multicast()
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;
    use crate::network::packets::{SOON, SUBNET, machine};
    use crate::network::{Network, NetworkConfig, Rule};

    /// Looks at the network when it is dropped.
    struct Looks(Network, Sender<usize>);

    impl Drop for Looks {
        fn drop(&mut self) {
            let _ = self.1.send(self.0.machines().len());
        }
    }

    #[test]
    fn a_change_of_the_rules_or_the_machines_copies_nothing_else() {
        let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
        let _named = network.port(machine(1)).unwrap().named("web").unwrap();
        let before = network.shared.table();
        drop(network.port(machine(2)).unwrap());
        let then = network.shared.table();
        network.set_rules(&[Rule::allow()]).unwrap();
        let now = network.shared.table();
        assert!(Arc::ptr_eq(&before.names, &now.names) && Arc::ptr_eq(&before.routes, &now.routes));
        assert!(Arc::ptr_eq(&before.policy, &then.policy));
    }

    #[test]
    fn a_change_counts_from_the_next_look_on_however_many_look_meanwhile() {
        let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
        let mut view = View::new(&network.shared);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = network.machines();
                }
            });
            let is_seen = |_| {
                network.set_rules(&[Rule::allow()]).unwrap();
                view.refresh();
                Arc::ptr_eq(&view.table, &network.shared.table())
            };
            let seen = (0..20_000).all(is_seen);
            done.store(true, Ordering::Relaxed);
            assert!(seen);
        });
    }

    #[test]
    fn what_goes_with_the_last_look_at_how_a_network_was_may_use_the_network() {
        let network = Network::new(NetworkConfig::new(SUBNET)).unwrap();
        let (sender, looked) = channel();
        let looks = Looks(network.clone(), sender);
        let wake = move || {
            let _ = &looks;
        };
        let mut uplink = network.uplink(1420, 1, wake).unwrap();
        uplink.set_routes(&[Prefix::ALL]).unwrap();
        let mut view = View::new(&network.shared);
        drop(uplink);
        thread::spawn(move || view.refresh());
        assert_eq!(looked.recv_timeout(SOON), Ok(0));
    }
}
