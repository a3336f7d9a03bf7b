//! The network's side of an uplink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packet::{HEAD_LEN, Kind, Packet};
use super::parcel::{Parcel, Source, Undone};
use super::party::{Destination, UplinkEnd};
use super::prefix::Prefix;
use super::reason::Refusal;
use super::refuse::No;
use super::reply::Reply;
use super::uplink::{Injected, Inward};
use super::view::View;
use crate::error::Result;

pub(super) struct Join {
    view: View,
    end: Arc<UplinkEnd>,
    /// Whoever got the last packet, and was not woken yet.
    last: Option<Destination>,
    /// When the last packet came, in the time of the network.
    now: Duration,
}

impl Join {
    pub(super) fn new(view: View, end: Arc<UplinkEnd>) -> Self {
        Self { view, end, last: None, now: Duration::ZERO }
    }

    fn take(&mut self, bytes: &[u8]) -> std::result::Result<Injected, Refusal> {
        let mut head = [0; HEAD_LEN];
        let shown = bytes.len().min(HEAD_LEN);
        for (to, byte) in head.iter_mut().zip(bytes) {
            *to = *byte;
        }
        let packet = Packet::parse(head.get(..shown).unwrap_or_default(), bytes.len() as u64)?;
        let flow = packet.flow;
        let is_behind = self.view.uplink_of(flow.source).is_some_and(|uplink| Arc::ptr_eq(uplink, &self.end));
        if !is_behind || self.view.table.ports.get(flow.source).is_some() {
            return Err(Refusal::SourceAddress);
        }
        if matches!(packet.kind, Kind::Neighbour(_)) {
            return Err(Refusal::NeighbourClaim);
        }
        if flow.destination.is_multicast() {
            return Err(Refusal::Multicast);
        }
        if packet.len > usize::from(self.view.shared.config.mtu) {
            return Err(Refusal::TooLong);
        }
        if flow.destination == self.view.shared.config.subnet.dns() {
            return self.name_server(&packet, bytes).map(|()| Injected::Answered);
        }
        let to = self.view.find(flow.destination).ok_or(Refusal::NoDestination)?;
        // What came by a tunnel does not go back by it: its peers speak with each other by themselves.
        if matches!(&to, Destination::Uplink(uplink) if Arc::ptr_eq(uplink, &self.end)) {
            return Err(Refusal::NoDestination);
        }
        self.now = self.view.shared.time(Instant::now());
        match self.carry(&packet, head, bytes, to) {
            Err(Refusal::NoMember) => {
                let no = No::to(&packet, head.get(..shown).unwrap_or_default());
                let told = no.is_some_and(|no| Destination::Uplink(Arc::clone(&self.end)).answer(no.bytes()));
                Err(if told { Refusal::NoMember } else { Refusal::NoRoom })
            }
            carried => carried,
        }
    }

    /// Sends a packet on its way, if it may pass.
    fn carry(
        &mut self,
        packet: &Packet,
        mut head: [u8; HEAD_LEN],
        bytes: &[u8],
        to: Destination,
    ) -> std::result::Result<Injected, Refusal> {
        let (to, translation) = self.view.way(packet, &self.end.flows, to, self.now)?;
        let mut packet = *packet;
        translation.apply(&mut packet, &mut head, false);
        let mut parcel = Parcel { packet: &packet, head, source: Source::Host(bytes), undone: Undone::default() };
        parcel.deliver(&to).map_err(|refusal| to.refusal(&packet, refusal))?;
        if self.last.as_ref().is_none_or(|last| !last.is(&to)) {
            self.flush();
            self.last = Some(to);
        }
        Ok(Injected::Delivered)
    }

    /// Has the network's DNS server answer those behind the uplink, if a rule lets them ask it.
    fn name_server(&mut self, packet: &Packet, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        let policy = &self.view.table.policy;
        let rule = policy.admit(&packet.flow).ok_or(Refusal::Policy)?;
        policy.count(rule, packet.len);
        let reply = Reply::to(packet, bytes, &self.view.table.names)?;
        let told = Destination::Uplink(Arc::clone(&self.end)).answer(reply.bytes());
        if told { Ok(()) } else { Err(Refusal::NoRoom) }
    }
}

impl Inward for Join {
    fn inject(&mut self, packet: &[u8]) -> Injected {
        self.view.refresh();
        match self.take(packet) {
            Ok(injected) => injected,
            Err(reason) => {
                self.view.shared.refusals.count(reason);
                self.end.refusals.count(reason);
                Injected::Dropped(reason)
            }
        }
    }

    fn flush(&mut self) {
        if let Some(last) = self.last.take() {
            last.ring(self.now);
        }
    }

    fn set_routes(&mut self, routes: &[Prefix]) -> Result<()> {
        self.view.shared.set_routes(&self.end, routes)
    }
}

impl Drop for Join {
    fn drop(&mut self) {
        self.flush();
        let _ = self.view.shared.set_routes(&self.end, &[]);
    }
}

#[cfg(test)]
#[path = "join_test.rs"]
mod tests;
