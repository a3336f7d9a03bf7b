//! Where a packet goes: to the machine or the uplink that has its destination, or to a member of the service that has it.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::address::MachineAddress;
use super::flows::{Flows, Followed, Side};
use super::packet::{Kind, Packet, RST, SYN};
use super::party::Destination;
use super::reason::Refusal;
use super::service::balancer::{Balancer, Choice};
use super::translate::Translation;
use super::view::View;
use crate::sys::lock;
use crate::sys::sync::Mutex;

/// Where a packet goes, and by which addresses.
pub(super) type Way = (Destination, Translation);

impl View {
    /// Whether a packet to `to` may pass, and where it really goes. It is counted.
    ///
    /// # Errors
    /// Why it is dropped. [`NoMember`](Refusal::NoMember): its sender is to be [told](super::refuse::No).
    pub(super) fn way(
        &self,
        packet: &Packet,
        from: &Mutex<Flows>,
        to: Destination,
        now: Duration,
    ) -> Result<Way, Refusal> {
        let (to, translation) = match &to {
            Destination::Service(service) => self.balance(packet, from, service, now)?,
            other => {
                let flows = other.flows().ok_or(Refusal::NoDestination)?;
                let translation = self.admit(packet, from, flows, now)?;
                (to, translation)
            }
        };
        let translation = to.inward(translation);
        Ok((to, translation))
    }

    /// Finds the member of a service that a packet goes to.
    fn balance(
        &self,
        packet: &Packet,
        from: &Mutex<Flows>,
        service: &Arc<Balancer>,
        now: Duration,
    ) -> Result<Way, Refusal> {
        let policy = &self.table.policy;
        match packet.kind {
            Kind::Error(about) => {
                // About an answer of a member's, which its client knows as the service's.
                let is_about_answer = about.source == packet.flow.destination && self.leads_to(about.destination, from);
                let member = lock(from).member(policy, &about.reversed(), now).filter(|_| is_about_answer);
                let member = member.ok_or(Refusal::Policy)?.ip();
                let to = self.member(member, from).ok_or(Refusal::NoDestination)?;
                let translation = Translation { about_source: Some(member), ..Translation::to(member) };
                return Ok((to, translation));
            }
            Kind::Tcp(_) | Kind::Udp | Kind::EchoRequest => {}
            Kind::EchoReply | Kind::Neighbour(_) | Kind::Other => return Err(Refusal::Policy),
        }
        let followed = lock(from).follow(policy, &packet.flow, packet, Side::First, now);
        match followed {
            Followed::Member(member) => self.go_on(service, member, packet, from, now),
            Followed::No | Followed::Gone => self.begin(packet, from, service, now),
        }
    }

    /// The way of a flow that has its member.
    fn go_on(
        &self,
        service: &Arc<Balancer>,
        member: MachineAddress,
        packet: &Packet,
        from: &Mutex<Flows>,
        now: Duration,
    ) -> Result<Way, Refusal> {
        let to = self.member(member.ip(), from).ok_or(Refusal::NoDestination)?;
        // One that is paused may be woken. If nobody can do that, this is a packet for a machine that has no room for it.
        let is_paused = matches!(&to, Destination::Port(port) if !port.runs());
        if is_paused && service.ask(Some(member), now) {
            return hold(service, packet);
        }
        Ok((to, Translation::to(member.ip())))
    }

    /// The way to a member: its port, or the uplink that leads to it, which is not the one that the packet came by.
    fn member(&self, member: Ipv6Addr, from: &Mutex<Flows>) -> Option<Destination> {
        let to = self.find(member)?;
        let is_back = || to.flows().is_some_and(|flows| std::ptr::eq(flows, from));
        match &to {
            Destination::Port(_) => Some(to),
            Destination::Uplink(_) if !is_back() => Some(to),
            Destination::Uplink(_) | Destination::Service(_) => None,
        }
    }

    /// Finds a member for a flow that is to begin.
    fn begin(
        &self,
        packet: &Packet,
        from: &Mutex<Flows>,
        service: &Arc<Balancer>,
        now: Duration,
    ) -> Result<Way, Refusal> {
        let policy = &self.table.policy;
        let flow = packet.flow;
        if matches!(packet.kind, Kind::Tcp(flags) if flags & RST != 0) {
            return Err(Refusal::Policy);
        }
        let rule = policy.judge(&flow).ok_or(Refusal::Policy)?;
        // A connection of which nobody knows, perhaps because its member is gone.
        if matches!(packet.kind, Kind::Tcp(flags) if flags & SYN == 0) {
            return Err(Refusal::NoMember);
        }
        let mut except: Option<Ipv6Addr> = None;
        loop {
            let lease = match service.choose(flow.source, except, |ip| self.member(ip, from).is_some(), now) {
                Choice::Member(lease) => lease,
                Choice::Hold => return hold(service, packet),
                Choice::Refuse => return Err(Refusal::NoMember),
            };
            let member = lease.member().ip();
            let to = self.member(member, from).ok_or(Refusal::NoDestination)?;
            if lock(from).begin_leased(policy, packet, rule, lease, now)? {
                policy.begun(rule);
                service.counters.flows.add(1);
                return Ok((to, Translation::to(member)));
            }
            if except.replace(member).is_some() {
                return Err(Refusal::FlowTable);
            }
        }
    }
}

/// Has a packet wait for a member.
fn hold(service: &Arc<Balancer>, packet: &Packet) -> Result<Way, Refusal> {
    if matches!(packet.kind, Kind::Tcp(_)) && service.held.has(&packet.flow) {
        return Err(Refusal::Waiting);
    }
    Ok((Destination::Service(Arc::clone(service)), Translation::NONE))
}
