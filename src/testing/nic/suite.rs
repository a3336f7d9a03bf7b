//! What the rules for NICs are tried on.

use std::time::{Duration, Instant};

use super::driver::NicDriver;
use super::frames::{NUMBERED, frame, number, packet};
use super::wire::Wire;
use crate::event::IoThread;
use crate::net::Nic;

/// A NIC under test.
pub(super) struct Suite {
    pub(super) make: Box<dyn Fn() -> (Nic, Box<dyn Wire>)>,
    pub(super) largest: usize,
    pub(super) patience: Duration,
}

/// A rule by its name, and what finds out whether it is kept.
pub(super) type Rule = (&'static str, fn(&Suite) -> Result<(), String>);

/// A NIC at work, with a guest at one end and a wire at the other.
pub(super) struct Session {
    pub(super) guest: NicDriver,
    pub(super) wire: Box<dyn Wire>,
    pub(super) io_thread: IoThread,
    pub(super) patience: Duration,
    next: u64,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

pub(super) const WAYS: [Way; 2] = [Way::Out, Way::In];

/// A frame may be lost, as on any wire. One that is lost so often is not lost by chance.
const TRIES: u32 = 4;

impl Suite {
    /// A NIC whose guest has room for frames.
    pub(super) fn session(&self) -> Result<Session, String> {
        let mut session = self.session_without_room()?;
        session.guest.fill();
        session.settle()?;
        Ok(session)
    }

    pub(super) fn session_without_room(&self) -> Result<Session, String> {
        let (nic, wire) = (self.make)();
        let io_thread = IoThread::new("conformance").map_err(|error| error.to_string())?;
        let guest = NicDriver::new(nic, &io_thread).map_err(|error| error.chain().to_string())?;
        Ok(Session { guest, wire, io_thread, patience: self.patience, next: 0 })
    }
}

impl Session {
    fn end(&mut self, way: Way) -> (&mut dyn Wire, &mut dyn Wire) {
        match way {
            Way::Out => (&mut self.guest, &mut *self.wire),
            Way::In => (&mut *self.wire, &mut self.guest),
        }
    }

    /// A number that no frame has had.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Waits until frames pass: some wires lose them for a moment after they were plugged in.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        for way in WAYS {
            while self.try_pass(way, 64, Duration::from_millis(20))?.is_none() {
                if begun.elapsed() > self.patience {
                    return Err(format!("no frame passed {way:?} for {:?}", self.patience));
                }
            }
        }
        Ok(())
    }

    /// Passes a frame of `len` bytes, which must arrive whole, if not at once then at a later try.
    pub(super) fn pass(&mut self, way: Way, len: usize) -> Result<(), String> {
        for _ in 0..TRIES {
            if self.try_pass(way, len, self.patience / TRIES)?.is_some() {
                return Ok(());
            }
        }
        Err(format!("a frame of {len} bytes did not arrive {way:?}, at {TRIES} tries in {:?}", self.patience))
    }

    /// Sends a frame on a pair of queues of the guest's, which must arrive, if not at once then at a later try.
    pub(super) fn pass_on(&mut self, pair: usize) -> Result<(), String> {
        for _ in 0..TRIES {
            let sent = packet(self.number(), 300);
            self.guest.send_on(pair, &sent);
            if self.arrives(Way::Out, &sent, self.patience / TRIES)?.is_some() {
                return Ok(());
            }
        }
        Err(format!("no frame that was sent on pair {pair} arrived, at {TRIES} tries in {:?}", self.patience))
    }

    fn try_pass(&mut self, way: Way, len: usize, limit: Duration) -> Result<Option<()>, String> {
        let sent = packet(self.number(), len);
        self.send(way, &sent);
        self.arrives(way, &sent, limit)
    }

    /// Waits for a packet that was sent.
    fn arrives(&mut self, way: Way, sent: &[u8], limit: Duration) -> Result<Option<()>, String> {
        let (_, to) = self.end(way);
        let begun = Instant::now();
        while let Some(received) = to.receive(limit.saturating_sub(begun.elapsed())) {
            let Some(received) = frame(&received) else { continue };
            if frame(sent) == Some(received) {
                return Ok(Some(()));
            }
            // Otherwise a late one of before. Short ones have no number to say which.
            if received.len() >= NUMBERED {
                checked_number(way, received)?;
            }
        }
        Ok(None)
    }

    /// Takes all frames that arrive until none comes for a while: their numbers, after a look at their bytes.
    pub(super) fn drain(&mut self, way: Way, quiet: Duration) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        let (_, to) = self.end(way);
        while let Some(received) = to.receive(quiet) {
            let Some(received) = frame(&received) else { continue };
            numbers.push(checked_number(way, received)?);
        }
        Ok(numbers)
    }

    pub(super) fn send(&mut self, way: Way, packet: &[u8]) -> bool {
        self.end(way).0.send(packet)
    }

    /// Whatever arrived is in order, and once.
    pub(super) fn check_order(way: Way, numbers: &[u64]) -> Result<(), String> {
        match numbers.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) if pair[0] == pair[1] => Err(format!("frame {} arrived {way:?} twice", pair[0])),
            Some(pair) => Err(format!("frame {} arrived {way:?} behind frame {}", pair[1], pair[0])),
            None => Ok(()),
        }
    }
}

/// The number of a frame whose bytes are those that were sent under it.
fn checked_number(way: Way, received: &[u8]) -> Result<u64, String> {
    let number = number(received).ok_or_else(|| format!("a frame arrived {way:?} cut to {} bytes", received.len()))?;
    if frame(&packet(number, received.len())) == Some(received) {
        return Ok(number);
    }
    Err(format!("frame {number} of {} bytes arrived {way:?} changed", received.len()))
}
