//! What goes to the guest: resets first, and one packet of each connection after the other.

use super::super::connection::{Packet, State};
use super::super::packet::{HEADER_LEN, op};
use super::{EVENTS, GREETING_LIMIT, RX, TRANSPORT_RESET, Vsock};
use crate::error::Result;
use crate::event::Io;
use crate::memory::GuestRanges;
use crate::virtio::{Chain, Queue, Queues};

impl Vsock {
    /// Sends for as long as there is something to send, room for it, and time.
    pub(super) fn send(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(queue) = queues.get(RX) else { return Ok(()) };
        while self.has_something_to_send() {
            let Some(chain) = queue.pop(io)? else { return Ok(()) };
            if chain.writable_len() < HEADER_LEN {
                self.counters.bad_packets.add(1);
                queue.complete_later(chain, 0);
            } else if let Some(header) = self.resets.pop_front() {
                let written = chain.write(0, &header.to_bytes()).map_or(0, |()| HEADER_LEN);
                queue.complete_later(chain, written);
            } else {
                self.send_next(io, queue, chain)?;
            }
        }
        Ok(())
    }

    /// Connections that have nothing to send leave the line.
    fn has_something_to_send(&mut self) -> bool {
        if !self.resets.is_empty() {
            return true;
        }
        while let Some(index) = self.table.first() {
            if self.table.get(index).is_some_and(|connection| connection.next().is_some()) {
                return true;
            }
            self.table.rotate(false);
        }
        false
    }

    /// Sends a packet of the connection whose turn it is.
    fn send_next(&mut self, io: &mut Io, queue: &mut Queue, chain: Chain) -> Result<()> {
        let index = self.table.first();
        let Some(connection) = index.and_then(|index| self.table.get(index)) else { return queue.put_back(chain) };
        let (op, flags, len) = match connection.next() {
            Some(Packet::Control { op, flags }) => (op, flags, 0),
            Some(Packet::Data { most }) => {
                let room = chain.writable_len().saturating_sub(HEADER_LEN).min(most);
                let mut ranges = GuestRanges::new(std::mem::take(&mut self.ranges), queue.lessor().lease());
                let segments = chain.writable_range(HEADER_LEN, room).map(|segment| (segment.gpa, segment.len));
                let fits = ranges.extend(segments);
                if room == 0 || fits.is_err() {
                    self.counters.bad_packets.add(1);
                    self.ranges = ranges.into_list();
                    queue.complete_later(chain, 0);
                    return Ok(());
                }
                let (read, ranges) = connection.read(ranges);
                self.ranges = ranges.into_list();
                let Some(len) = read else { return queue.put_back(chain) };
                (op::RW, 0, len)
            }
            None => return queue.put_back(chain),
        };
        connection.note_sent(op, len);
        let header = connection.header(self.cid, op, flags, len);
        let written = chain.write(0, &header.to_bytes()).map_or(0, |()| HEADER_LEN.saturating_add(len));
        queue.complete_later(chain, written);
        let (has_more, is_over) = (connection.next().is_some(), connection.has_said_goodbye());
        self.table.rotate(has_more);
        io.charge(len.into());
        self.counters.bytes_to_guest.add(len.into());
        if is_over && let Some(index) = index {
            self.close_stream(index);
        }
        Ok(())
    }

    /// The host's end is gone, and the guest has been told; it is to reset the connection.
    fn close_stream(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        connection.state = State::Closing;
        if let Some(stream) = connection.stream.take() {
            let _ = self.epoll.delete(std::os::fd::AsRawFd::as_raw_fd(&stream));
        }
        self.await_answer(index, GREETING_LIMIT);
    }

    /// Tells the driver that all connections are gone, if that is owed.
    pub(super) fn send_event(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(queue) = queues.get(EVENTS).filter(|_| self.owes_event) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            let sent = chain.write(0, &TRANSPORT_RESET.to_le_bytes()).is_ok();
            queue.complete(chain, if sent { 4 } else { 0 });
            if sent {
                self.owes_event = false;
                break;
            }
            self.counters.bad_packets.add(1);
        }
        Ok(())
    }
}
