//! Who takes part in a network: machines at their ports, and what lies behind uplinks.

use std::sync::Arc;
use std::time::Duration;

use super::address::MachineAddress;
use super::checksum::Sum;
use super::flows::Flows;
use super::neighbour::ethernet;
use super::outbox::Outbox;
use super::packet::{ETHERNET_LEN, Kind, Packet, SYN};
use super::pool::{Landing, Pool};
use super::pulse::Pulse;
use super::reason::{Refusal, Refusals};
use super::service::balancer::Balancer;
use super::settings::FlowLimits;
use super::translate::Translation;
use crate::memory::GuestRanges;
use crate::net::{Offloads, VnetHeader};
use crate::sys::sync::Mutex;

/// A port, as others see it.
pub(super) struct PortEnd {
    pub(super) address: MachineAddress,
    /// Who the guest takes itself for: another machine if it is a clone of that one.
    pub(super) guest: MachineAddress,
    pub(super) pool: Pool,
    pub(super) flows: Mutex<Flows>,
    /// Apart, for the services that it is a member of.
    pub(super) pulse: Arc<Pulse>,
    /// What came from it and was dropped.
    pub(super) refusals: Refusals,
}

/// An uplink, as others see it.
pub(super) struct UplinkEnd {
    pub(super) outbox: Arc<Outbox>,
    pub(super) mtu: u16,
    pub(super) flows: Mutex<Flows>,
    pub(super) refusals: Refusals,
}

/// Where a packet goes.
#[derive(Clone)]
pub(super) enum Destination {
    Port(Arc<PortEnd>),
    Uplink(Arc<UplinkEnd>),
    /// It waits for a member of the service.
    Service(Arc<Balancer>),
}

/// Room for one packet at its destination. Places in it are counted from the IPv6 header on.
pub(super) enum Target {
    Guest(Landing),
    Host(Vec<u8>),
}

impl PortEnd {
    pub(super) fn new(address: MachineAddress, guest: MachineAddress, limits: FlowLimits, now: Duration) -> Self {
        let flows = Mutex::new(Flows::new(limits));
        let (pool, refusals) = (Pool::default(), Refusals::default());
        Self { address, guest, pool, flows, pulse: Arc::new(Pulse::new(now)), refusals }
    }

    /// What makes a packet of the guest's one of the machine's.
    pub(super) fn outward(&self, packet: &Packet) -> Translation {
        if self.guest == self.address {
            return Translation::NONE;
        }
        let (guest, own) = (self.guest.ip(), Some(self.address.ip()));
        let is_about_guest = matches!(packet.kind, Kind::Error(about) if about.destination == guest);
        Translation { source: own, about_destination: own.filter(|_| is_about_guest), ..Translation::NONE }
    }

    /// What makes a packet to the machine one to the guest, beside what is replaced anyway.
    pub(super) fn inward(&self, translation: Translation) -> Translation {
        if self.guest == self.address {
            return translation;
        }
        // An error is about a packet that the machine has sent.
        let guest = Some(self.guest.ip());
        Translation { destination: guest, about_source: guest, ..translation }
    }

    /// Whether the machine runs: its driver is up, and it is not paused.
    pub(super) fn runs(&self) -> bool {
        self.pulse.runs()
    }

    /// Puts a packet of the switch's own there, with the addresses that the guest knows; says whether there was room.
    pub(super) fn answer(&self, packet: &[u8]) -> bool {
        let len = (packet.len() as u64).saturating_add(ETHERNET_LEN as u64);
        let Some(landing) = self.pool.take(len) else { return false };
        landing.write(0, &ethernet(self.guest.mac()));
        landing.write(ETHERNET_LEN as u64, packet);
        self.pool.put(landing, VnetHeader::default(), len);
        self.pool.ring();
        true
    }
}

impl Destination {
    /// The flows that it has begun; `None` for a service, which begins none.
    pub(super) fn flows(&self) -> Option<&Mutex<Flows>> {
        match self {
            Self::Port(port) => Some(&port.flows),
            Self::Uplink(uplink) => Some(&uplink.flows),
            Self::Service(_) => None,
        }
    }

    /// What makes a packet to the machine one to its guest, beside what is replaced anyway.
    pub(super) fn inward(&self, translation: Translation) -> Translation {
        match self {
            Self::Port(port) => port.inward(translation),
            Self::Uplink(_) | Self::Service(_) => translation,
        }
    }

    /// What makes a packet of the machine's the one that its guest has sent.
    pub(super) fn back_at_guest(&self) -> Translation {
        match self {
            Self::Port(port) if port.guest != port.address => Translation::from(port.guest.ip()),
            Self::Port(_) | Self::Uplink(_) | Self::Service(_) => Translation::NONE,
        }
    }

    /// What may be left undone; `None` if there is no room now.
    pub(super) fn offloads(&self) -> Option<Offloads> {
        match self {
            Self::Port(port) => port.pool.offloads(),
            Self::Uplink(_) | Self::Service(_) => Some(Offloads::NONE),
        }
    }

    /// How long packets may be, if not as long as in the network.
    pub(super) fn mtu(&self) -> Option<u16> {
        match self {
            Self::Port(_) | Self::Service(_) => None,
            Self::Uplink(uplink) => Some(uplink.mtu),
        }
    }

    pub(super) fn open(&self, len: usize) -> Option<Target> {
        match self {
            Self::Port(port) => port.pool.take((len as u64).saturating_add(ETHERNET_LEN as u64)).map(Target::Guest),
            Self::Uplink(uplink) => {
                let mut storage = uplink.outbox.storage()?;
                storage.resize(len, 0);
                Some(Target::Host(storage))
            }
            Self::Service(service) => service.held.open(len).map(Target::Host),
        }
    }

    pub(super) fn close(&self, target: Target, header: VnetHeader, len: usize) {
        match (self, target) {
            (Self::Port(port), Target::Guest(landing)) => {
                landing.write(0, &ethernet(port.guest.mac()));
                port.pool.put(landing, header, (len as u64).saturating_add(ETHERNET_LEN as u64));
            }
            (Self::Uplink(uplink), Target::Host(storage)) => uplink.outbox.put(storage),
            (Self::Service(service), Target::Host(storage)) => service.hold(storage),
            // Each target was opened by its own destination.
            (Self::Port(_), Target::Host(_)) | (Self::Uplink(_) | Self::Service(_), Target::Guest(_)) => {}
        }
    }

    /// Why a packet was not delivered there: what finds no room to wait for a member is refused. But a connection that has its member does not
    /// end by that, as its sender says it again.
    pub(super) fn refusal(&self, packet: &Packet, refusal: Refusal) -> Refusal {
        let goes_on = matches!(packet.kind, Kind::Tcp(flags) if flags & SYN == 0);
        match (self, refusal) {
            (Self::Service(_), Refusal::NoRoom) if !goes_on => Refusal::NoMember,
            _ => refusal,
        }
    }

    /// Puts a packet of the switch's own there; says whether there was room.
    pub(super) fn answer(&self, packet: &[u8]) -> bool {
        match self {
            Self::Port(port) => port.answer(packet),
            Self::Uplink(uplink) => {
                let Some(mut storage) = uplink.outbox.storage() else { return false };
                storage.extend_from_slice(packet);
                uplink.outbox.put(storage);
                uplink.outbox.ring();
                true
            }
            Self::Service(_) => false,
        }
    }

    /// Wakes whoever takes the packets that were put there until now.
    pub(super) fn ring(&self, now: Duration) {
        match self {
            Self::Port(port) => {
                port.pulse.touch(now);
                port.pool.ring();
            }
            Self::Uplink(uplink) => uplink.outbox.ring(),
            Self::Service(_) => {}
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Port(one), Self::Port(other)) => Arc::ptr_eq(one, other),
            (Self::Uplink(one), Self::Uplink(other)) => Arc::ptr_eq(one, other),
            (Self::Service(one), Self::Service(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Target {
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Self::Guest(landing) => landing.write(at.saturating_add(ETHERNET_LEN) as u64, bytes),
            Self::Host(storage) => {
                if let Some(place) = storage.get_mut(at..at.saturating_add(bytes.len())) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }

    /// Copies from a guest's memory, from byte `offset` of it on.
    pub(super) fn copy(&mut self, at: usize, from: &GuestRanges, offset: usize, len: usize) {
        match self {
            Self::Guest(landing) => landing.copy(at.saturating_add(ETHERNET_LEN) as u64, from, offset as u64, len),
            Self::Host(storage) => {
                if let Some(place) = storage.get_mut(at..at.saturating_add(len)) {
                    let _ = from.copy_out(offset as u64, place);
                }
            }
        }
    }

    pub(super) fn sum(&self, at: usize, len: usize, sum: &mut Sum) {
        match self {
            Self::Guest(landing) => landing.sum(at.saturating_add(ETHERNET_LEN) as u64, len, sum),
            Self::Host(storage) => {
                sum.add(storage.get(at..at.saturating_add(len)).unwrap_or_default());
            }
        }
    }
}
