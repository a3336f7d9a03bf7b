//! A machine's port: the backend of its card.

use std::collections::VecDeque;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::MachineAddress;
use super::neighbour::{ADVERTISE_SECONDS, LONGEST_QUESTION, Link, Message, ROUTER_MAC};
use super::packet::{ETHERNET_LEN, HEAD_LEN, Kind, Packet, be16};
use super::parcel::{Parcel, Source, Undone};
use super::party::{Destination, PortEnd};
use super::pool::Filled;
use super::reason::Refusal;
use super::refuse::No;
use super::reply::{LONGEST_QUERY, Reply};
use super::view::View;
use crate::error::Result;
use crate::event::{Event, Io, Token, Wants};
use crate::meter::Meter;
use crate::net::{Need, Nic, NicBackend, NicInfo, Offloads, RxBatch, RxBuffer, RxReturn, TxBatch, TxFrame};

/// So many of a guest's buffers are out at once: all of a card's queue.
const MOST_LENT: usize = 256;
/// So many of them are handed over at once: room for all would stay taken for as long as the port lives.
const AT_ONCE: usize = 16;
/// To look at a frame's headers takes about as long as copying so many bytes.
const LOOK_CHARGE: u64 = 512;
/// The same for a question for a name.
const NAME_CHARGE: u64 = 4096;
/// The same for a packet to a service, for which members may have to be compared.
const SERVICE_CHARGE: u64 = 2048;
const IPV6: u16 = 0x86dd;

/// A machine's port: what its card is put on. Its address is free again when it is dropped, which the end of its VM does.
///
/// A guest that sends a frame has it copied straight into the memory of the guest that gets it, on the sender's I/O thread.
pub struct Port {
    view: View,
    end: Arc<PortEnd>,
    link: Link,
    token: Option<Token>,
    /// What the guest lends, on the way to the pool.
    lent: Vec<RxBuffer>,
    /// How many buffers are out.
    out: usize,
    /// Frames that are there, and wait for their turn.
    filled: VecDeque<Filled>,
    /// Storage of frames that were delivered.
    spent: Vec<Vec<RxBuffer>>,
    /// Whoever got the last frame, and was not woken yet.
    last: Option<Destination>,
    /// When the last batch came, in the time of the network.
    now: Duration,
    /// A packet of that batch has passed.
    has_sent: bool,
    /// When the guest is told again of its network.
    advertise: Option<Instant>,
    /// Frames of a test's, which are no packets, go to the only other port.
    #[cfg(test)]
    pub(super) passes_test_frames: bool,
}

impl Port {
    pub(super) fn new(view: View, end: Arc<PortEnd>) -> Self {
        let link = Link { guest: end.guest, mtu: view.shared.config.mtu };
        Self {
            view,
            end,
            link,
            token: None,
            lent: Vec::new(),
            out: 0,
            filled: VecDeque::new(),
            spent: Vec::new(),
            last: None,
            now: Duration::ZERO,
            has_sent: false,
            advertise: None,
            #[cfg(test)]
            passes_test_frames: false,
        }
    }

    /// Returns the machine's address.
    pub fn address(&self) -> MachineAddress {
        self.end.address
    }

    /// Returns who the guest takes itself for: another machine at a port [for a clone](super::Network::port_for_clone).
    pub fn guest_address(&self) -> MachineAddress {
        self.end.guest
    }

    /// Gives the machine a name: the network's DNS server has its address under `NAME.internal` while it runs. Several machines may have
    /// one name, and a machine eight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for what is no name, as 1 to 63 letters, digits and hyphens are, and
    /// for a name that the machine has.
    pub fn named(self, name: &str) -> Result<Self> {
        self.add_name(name)?;
        Ok(self)
    }

    /// As [`named`](Self::named), for who keeps the port if the name is refused.
    pub(crate) fn add_name(&self, name: &str) -> Result<()> {
        self.view.shared.change(|table| Arc::make_mut(&mut table.names).add(name, &self.end))
    }

    /// Makes the card, with the MAC address that the guest knows and the MTU of the network. Leave both as they are: what a card of another address sends is
    /// dropped, [`SourceMac`](super::Refusal::SourceMac). It never blocks, so it shares the VM's I/O thread.
    pub fn into_nic(self) -> Nic {
        let (mac, mtu) = (self.guest_address().mac(), self.view.shared.config.mtu);
        Nic::backend(self).never_blocks().mac(mac).mtu(mtu)
    }

    /// Sends one frame on its way, and says what that has cost beside the copy.
    fn forward(&mut self, frame: &TxFrame) -> std::result::Result<u64, Refusal> {
        let mut bytes = [0; ETHERNET_LEN + HEAD_LEN];
        let shown = usize::try_from(frame.len()).unwrap_or(usize::MAX).min(bytes.len());
        let shown = bytes.get_mut(..shown).unwrap_or_default();
        frame.data().copy_out(0, shown).map_err(|_| Refusal::Malformed)?;
        let (ethernet, head) = shown.split_at_checked(ETHERNET_LEN).ok_or(Refusal::Malformed)?;
        #[cfg(test)]
        if self.passes_test_frames && be16(ethernet, 12)? == 0x88b5 {
            return self.pass_test_frame(frame);
        }
        if ethernet.get(6..12) != Some(&self.end.guest.mac()) {
            return Err(Refusal::SourceMac);
        }
        if be16(ethernet, 12)? != IPV6 {
            return Err(Refusal::NotIpv6);
        }
        let packet = Packet::parse(head, frame.len().saturating_sub(ETHERNET_LEN as u64))?;
        self.check_source(&packet)?;
        if let Kind::Neighbour(kind) = packet.kind {
            return self.neighbour(&packet, kind, frame).map(|()| 0);
        }
        if packet.flow.destination.is_multicast() {
            return Err(Refusal::Multicast);
        }
        if ethernet.get(..6) != Some(&ROUTER_MAC) {
            return Err(Refusal::NoDestination);
        }
        if packet.flow.destination == self.view.shared.config.subnet.dns() {
            self.name_server(&packet, frame)?;
            self.has_sent = true;
            return Ok(NAME_CHARGE);
        }
        let undone = Undone::of(frame.header(), &packet, self.link.mtu)?;
        let carried = self.carry(&packet, head, frame, undone);
        if carried == Err(Refusal::NoMember)
            && let Some(no) = No::to(&packet, head)
            && !self.end.answer(no.bytes())
        {
            return Err(Refusal::NoRoom);
        }
        carried
    }

    /// Sends a packet on its way, if it may pass.
    fn carry(
        &mut self,
        packet: &Packet,
        head: &[u8],
        frame: &TxFrame,
        undone: Undone,
    ) -> std::result::Result<u64, Refusal> {
        let mut copy = [0; HEAD_LEN];
        for (to, byte) in copy.iter_mut().zip(head.iter()) {
            *to = *byte;
        }
        let mut sent = *packet;
        self.end.outward(packet).apply(&mut sent, &mut copy, undone.checksum());
        let to = self.view.find(sent.flow.destination).ok_or(Refusal::NoDestination)?;
        // What a guest says to itself does not come here.
        if matches!(&to, Destination::Port(port) if Arc::ptr_eq(port, &self.end)) {
            return Err(Refusal::NoDestination);
        }
        let cost = if matches!(to, Destination::Service(_)) { SERVICE_CHARGE } else { 0 };
        let (to, translation) = self.view.way(&sent, &self.end.flows, to, self.now)?;
        translation.apply(&mut sent, &mut copy, undone.checksum());
        let mut parcel = Parcel { packet: &sent, head: copy, source: Source::Guest(frame.data()), undone };
        let delivered = parcel.deliver(&to).map_err(|refusal| to.refusal(packet, refusal));
        if delivered == Err(Refusal::TooLong)
            && let Some(mtu) = to.mtu()
        {
            self.answer(&self.link.too_big(packet, mtu, head))?;
        }
        if self.last.as_ref().is_none_or(|last| !last.is(&to)) {
            self.wake_last();
            self.last = Some(to);
        }
        self.has_sent |= delivered.is_ok();
        delivered.map(|more| more.saturating_add(cost))
    }

    /// A guest speaks from its own addresses alone; before it has one, it may look for its neighbours.
    fn check_source(&self, packet: &Packet) -> std::result::Result<(), Refusal> {
        let own = self.end.guest;
        let source = packet.flow.source;
        let is_own = match packet.kind {
            Kind::Neighbour(_) => source == own.ip() || source == own.link_local() || source == Ipv6Addr::UNSPECIFIED,
            _ => source == own.ip(),
        };
        if is_own { Ok(()) } else { Err(Refusal::SourceAddress) }
    }

    fn neighbour(&self, packet: &Packet, kind: u8, frame: &TxFrame) -> std::result::Result<(), Refusal> {
        let mut question = [0; LONGEST_QUESTION];
        let question = question.get_mut(..packet.len).ok_or(Refusal::Malformed)?;
        frame.data().copy_out(ETHERNET_LEN as u64, question).map_err(|_| Refusal::Malformed)?;
        // The guest may have written another one meanwhile.
        let packet = Packet::parse(question, packet.len as u64)?;
        self.check_source(&packet)?;
        match self.link.answer(&packet, kind, question)? {
            Some(message) => self.answer(&message),
            None => Ok(()),
        }
    }

    /// Has the network's own DNS server answer.
    fn name_server(&self, packet: &Packet, frame: &TxFrame) -> std::result::Result<(), Refusal> {
        let mut bytes = [0; LONGEST_QUERY];
        let bytes = bytes.get_mut(..packet.len).ok_or(Refusal::TooLong)?;
        frame.data().copy_out(ETHERNET_LEN as u64, bytes).map_err(|_| Refusal::Malformed)?;
        // The headers are those that were checked, whatever the guest has made of its own meanwhile.
        let reply = Reply::to(packet, bytes, &self.view.table.names)?;
        if self.end.answer(reply.bytes()) { Ok(()) } else { Err(Refusal::NoRoom) }
    }

    fn answer(&self, message: &Message) -> std::result::Result<(), Refusal> {
        if self.end.answer(message.bytes()) { Ok(()) } else { Err(Refusal::NoRoom) }
    }

    fn wake_last(&mut self) {
        if let Some(last) = self.last.take() {
            last.ring(self.now);
        }
    }

    fn count(&self, reason: Refusal) {
        self.end.refusals.count(reason);
        self.view.shared.refusals.count(reason);
    }

    /// Lends the network all buffers that the guest has, and takes the frames that have come.
    fn exchange(&mut self, io: &mut Io, frames: &mut RxBatch) {
        loop {
            while self.out < MOST_LENT
                && self.lent.len() < AT_ONCE
                && let Some(buffer) = frames.lend(io)
            {
                self.out = self.out.saturating_add(1);
                self.lent.push(buffer);
            }
            let is_last = self.lent.len() < AT_ONCE;
            self.end.pool.exchange(&mut self.lent, &mut self.spent, &mut self.filled);
            if is_last {
                break;
            }
        }
    }

    fn deliver(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while frames.may_deliver(io)
            && let Some(Filled { mut buffers, header, len }) = self.filled.pop_front()
        {
            self.out = self.out.saturating_sub(buffers.len());
            // What the guest does not take is counted by its card.
            let _ = frames.deliver(io, &header, len, buffers.drain(..));
            self.spent.push(buffers);
        }
    }

    /// Tells the guest again of its network, if it is time. A guest that has just begun asks.
    fn advertise(&mut self, now: Instant) {
        if self.advertise.is_none_or(|due| due <= now) {
            if self.advertise.is_some() {
                let _ = self.answer(&self.link.advertisement());
            }
            self.advertise = now.checked_add(Duration::from_secs(ADVERTISE_SECONDS));
        }
    }

    #[cfg(test)]
    fn pass_test_frame(&mut self, frame: &TxFrame) -> std::result::Result<u64, Refusal> {
        let mut others = self.view.table.ports.iter().filter(|port| !Arc::ptr_eq(port, &self.end));
        let other = Arc::clone(others.next().ok_or(Refusal::NoDestination)?);
        let landing = other.pool.take(frame.len()).ok_or(Refusal::NoRoom)?;
        landing.copy(0, frame.data(), 0, usize::try_from(frame.len()).unwrap());
        other.pool.put(landing, *frame.header(), frame.len());
        other.pool.ring();
        Ok(0)
    }
}

impl NicBackend for Port {
    fn info(&self) -> NicInfo {
        NicInfo { offloads: Offloads { tso4: false, ..Offloads::ALL }, ..NicInfo::default() }
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        self.end.pool.set_waker(io.waker(token));
        Ok(())
    }

    fn negotiate(&mut self, _guest: Offloads) -> Result<()> {
        // What the guest copes with comes with each of its buffers.
        self.end.pulse.started();
        self.advertise = None;
        self.advertise(Instant::now());
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        self.exchange(io, frames);
        // From here on, it hears.
        if self.out > 0 && self.end.pulse.set_running(true) {
            self.view.shared.bell.ring();
        }
        self.deliver(io, frames);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        self.view.refresh();
        self.now = self.view.shared.time(io.now());
        self.has_sent = false;
        while let Some(frame) = frames.next(io) {
            let forwarded = self.forward(frame);
            frames.done();
            io.charge(LOOK_CHARGE);
            match forwarded {
                Ok(cost) => io.charge(cost),
                Err(reason) => {
                    io.charge(if matches!(reason, Refusal::NoMember | Refusal::Waiting) { SERVICE_CHARGE } else { 0 });
                    self.count(reason);
                }
            }
        }
        if self.has_sent {
            self.end.pulse.touch(self.now);
        }
        self.wake_last();
    }

    fn recall(&mut self, _io: &mut Io, back: &mut RxReturn) {
        let filled = self.filled.drain(..).flat_map(|filled| filled.buffers);
        filled.for_each(|buffer| back.give(buffer));
        self.end.pool.recall(back);
        self.end.pulse.set_running(false);
        self.out = 0;
    }

    fn wants(&self, _need: Need, wants: &mut Wants) {
        if let (Some(token), Some(at)) = (self.token, self.advertise) {
            wants.deadline(token, at);
        }
    }

    fn woken(&mut self, io: &mut Io, _event: &Event) {
        // The rest goes on in `receive`, which follows.
        self.advertise(io.now());
    }

    fn metrics(&self, meter: &mut Meter) {
        self.end.refusals.tell(meter);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.wake_last();
        self.view.shared.remove_port(&self.end);
        // Whoever still holds the other end gets nothing more of the guest's.
        self.end.pool.recall(&mut RxReturn::default());
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("address", &self.end.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "port_test.rs"]
mod tests;
