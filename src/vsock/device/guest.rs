//! What comes from the guest. Each packet is taken at once: what a stream does not take is held, as much as the guest was told that there
//! is room for, so no connection stands in the way of another.

use super::super::connection::{Asker, Ports, State};
use super::super::packet::{HEADER_LEN, HOST_CID, Header, STREAM, op};
use super::{CONNECTION_CHARGE, MOST_RESETS, TX, Vsock};
use crate::error::Result;
use crate::event::Io;
use crate::memory::GuestRanges;
use crate::sys::non_blocking_pair;
use crate::virtio::{Chain, Queues};

impl Vsock {
    /// Takes packets for as long as there are some, time, and room for resets, of which each one may need one as its answer. Says whether
    /// there is room.
    pub(super) fn receive(&mut self, io: &mut Io, queues: &mut Queues) -> Result<bool> {
        let Some(queue) = queues.get(TX) else { return Ok(true) };
        while self.resets.len() < MOST_RESETS {
            let Some(chain) = queue.pop(io)? else { return Ok(true) };
            let data = GuestRanges::new(std::mem::take(&mut self.ranges), queue.lessor().lease());
            let data = self.take_chain(io, &chain, data);
            self.ranges = data.into_list();
            queue.complete_later(chain, 0);
        }
        Ok(false)
    }

    /// Takes a packet; gives the ranges of its data back.
    fn take_chain(&mut self, io: &mut Io, chain: &Chain, mut data: GuestRanges) -> GuestRanges {
        let mut bytes = [0; HEADER_LEN as usize];
        if chain.read(0, &mut bytes).is_err() {
            self.counters.bad_packets.add(1);
            return data;
        }
        // It is read once: the guest may change it meanwhile.
        let header = Header::from_bytes(&bytes);
        if header.src_cid != self.cid {
            self.counters.bad_packets.add(1);
            return data;
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let index = self.table.find(ports).filter(|_| header.dst_cid == HOST_CID);
        let data_len = if header.op == op::RW { header.len } else { 0 };
        let segments = chain.readable_range(HEADER_LEN, data_len).map(|segment| (segment.gpa, segment.len));
        let is_whole = data.extend(segments).is_ok() && data.len() == u64::from(data_len);
        if !is_whole || header.kind != STREAM {
            self.counters.bad_packets.add(1);
            self.answer_by_reset(index, &header);
            return data;
        }
        // Making a connection and ending it takes longer than to copy some bytes.
        let is_data = matches!(header.op, op::RW | op::CREDIT_UPDATE | op::CREDIT_REQUEST);
        io.charge(if is_data { data_len.into() } else { CONNECTION_CHARGE });
        self.take_packet(index, &header, chain, &data);
        data
    }

    fn take_packet(&mut self, index: Option<u32>, header: &Header, chain: &Chain, data: &GuestRanges) {
        let Some(index) = index else {
            return match header.op {
                op::REQUEST if header.dst_cid == HOST_CID => self.take_request(header),
                _ => self.answer_by_reset(None, header),
            };
        };
        let Some(connection) = self.table.get(index) else { return };
        connection.note_room(header);
        let (is_open, is_closing) =
            (matches!(connection.state, State::Open), matches!(connection.state, State::Closing));
        let allowed = match header.op {
            op::RST => return self.ended_by_guest(index),
            op::RESPONSE => return self.take_response(index, header),
            // Both sides have closed at the same time: each one answers the other.
            op::SHUTDOWN if is_closing && connection.end_guest(header.flags) => {
                return self.close_orderly(index, header);
            }
            // It is on its way to its reset.
            _ if is_closing => true,
            op::RW => {
                let taken = connection.take(&self.epoll, chain, data, &mut self.spare);
                self.counters.bytes_from_guest.add(data.len());
                taken.is_ok()
            }
            op::SHUTDOWN if is_open => {
                if connection.end_guest(header.flags) {
                    return self.close_orderly(index, header);
                }
                true
            }
            op::CREDIT_UPDATE => is_open,
            op::CREDIT_REQUEST => {
                connection.owe_credit();
                is_open
            }
            _ => false,
        };
        if allowed {
            self.table.queue(index);
        } else {
            self.answer_by_reset(Some(index), header);
        }
    }

    /// The guest neither sends nor receives any more: that is answered at once, and what it sent before goes on to the stream.
    fn close_orderly(&mut self, index: u32, header: &Header) {
        self.push_reset(header);
        let holds = self.table.get(index).is_some_and(|connection| connection.drain());
        if holds {
            self.table.unname(index);
        } else {
            self.forget(index);
        }
    }

    /// The guest has accepted a connection.
    fn take_response(&mut self, index: u32, header: &Header) {
        let Some(connection) = self.table.get(index) else { return };
        let known = connection.is_known();
        match std::mem::replace(&mut connection.state, State::Open) {
            State::Opening(asker) if known => {
                connection.open();
                self.table.queue(index);
                match asker {
                    Asker::Program(answer) => _ = answer.map(|answer| answer.try_send(Ok(()))),
                    Asker::Client => self.greet(index),
                }
            }
            state => {
                connection.state = state;
                self.answer_by_reset(Some(index), header);
            }
        }
    }

    /// The guest asks for a connection to a port of the host.
    fn take_request(&mut self, header: &Header) {
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let index = self.connect_host(ports);
        let Some((index, connection)) = index.and_then(|index| Some((index, self.table.get(index)?))) else {
            self.counters.refused_by_host.add(1);
            return self.push_reset(header);
        };
        connection.respond(ports);
        connection.note_room(header);
        self.table.name(ports, index);
        self.table.queue(index);
        self.counters.by_guest.add(1);
    }

    /// Connects to whoever serves a port of the host: the host program, or else another one behind a Unix socket.
    fn connect_host(&mut self, ports: Ports) -> Option<u32> {
        if self.table.is_full() {
            return None;
        }
        if !self.shared.listens(ports.host) {
            let stream = self.socket.as_ref()?.connect(ports.host).ok()?;
            return self.admit(stream, State::Open);
        }
        let (ours, theirs) = non_blocking_pair().ok()?;
        let index = self.admit(ours, State::Open)?;
        if self.shared.deliver(ports.host, ports.guest, theirs) {
            return Some(index);
        }
        self.forget(index);
        None
    }

    /// Answers a packet that must not be, and ends the connection that it belongs to.
    fn answer_by_reset(&mut self, index: Option<u32>, header: &Header) {
        if let Some(index) = index {
            self.counters.resets.add(1);
            self.forget(index);
        }
        self.push_reset(header);
    }

    /// A reset is not answered by another one.
    fn push_reset(&mut self, header: &Header) {
        if header.op == op::RST {
            return;
        }
        let (src_cid, dst_cid, kind) = (header.dst_cid, self.cid, header.kind);
        let (src_port, dst_port) = (header.dst_port, header.src_port);
        self.resets.push_back(Header { src_cid, dst_cid, src_port, dst_port, kind, op: op::RST, ..Header::default() });
    }
}
