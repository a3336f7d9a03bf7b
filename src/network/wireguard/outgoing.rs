//! Datagrams on their way to the socket: sealed where they are sent from, those of one size to one peer side by side.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// The most bytes that wait for the socket.
const CAPACITY: usize = 256 << 10;
/// The most bytes of one run: the largest datagram over IPv6, which the kernel cuts into segments.
const RUN_BYTES: usize = 65_000;
/// The most segments of a run that kernels take.
const RUN_SEGMENTS: usize = 64;
/// The largest message: what fits in a datagram over IPv4.
pub(super) const MAX_MESSAGE: usize = 65_507;
/// The most runs that wait.
const MAX_RUNS: usize = 512;

/// Datagrams of one size, but for the last, which may be shorter, to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) to: SocketAddr,
    start: usize,
    len: usize,
    pub(super) segment: usize,
}

/// What waits for the socket: bounded, in storage that is made once.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    used: usize,
    runs: VecDeque<Run>,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; CAPACITY], used: 0, runs: VecDeque::with_capacity(MAX_RUNS) }
    }

    /// Room for the largest message, if there is room for another one.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        let end = self.used.checked_add(MAX_MESSAGE)?;
        if self.runs.len() >= MAX_RUNS {
            return None;
        }
        self.bytes.get_mut(self.used..end)
    }

    /// Adds the first `len` bytes of the room that was lent last.
    pub(super) fn add(&mut self, to: SocketAddr, len: usize) {
        let start = self.used;
        self.used = start.saturating_add(len);
        if let Some(run) = self.runs.back_mut().filter(|run| run.takes(to, len)) {
            run.len = run.len.saturating_add(len);
        } else {
            self.runs.push_back(Run { to, start, len, segment: len });
        }
    }

    /// Adds a datagram that is there already; says whether there was room.
    pub(super) fn push(&mut self, to: SocketAddr, message: &[u8]) -> bool {
        match self.room().and_then(|room| room.get_mut(..message.len())) {
            Some(room) => room.copy_from_slice(message),
            None => return false,
        }
        self.add(to, message.len());
        true
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether it is time to send: there may be no room for another packet soon.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.used > CAPACITY / 4
    }

    /// The first run, and its bytes.
    pub(super) fn first(&self) -> Option<(Run, &[u8])> {
        let run = *self.runs.front()?;
        Some((run, self.bytes.get(run.start..run.start.checked_add(run.len)?)?))
    }

    /// The first `bytes` of the first run were sent; or all of it, if there are no more.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Some(run) = self.runs.front_mut() {
            if bytes < run.len {
                run.start = run.start.saturating_add(bytes);
                run.len = run.len.saturating_sub(bytes);
                return;
            }
            self.runs.pop_front();
        }
        if self.runs.is_empty() {
            self.used = 0;
        }
    }
}

impl Run {
    /// Whether another datagram may follow the last one.
    fn takes(&self, to: SocketAddr, len: usize) -> bool {
        let whole = self.segment > 0 && self.len.checked_rem(self.segment) == Some(0);
        let count = self.len.checked_div(self.segment).unwrap_or(RUN_SEGMENTS);
        let fits = self.len.saturating_add(len) <= RUN_BYTES && count < RUN_SEGMENTS;
        self.to == to && whole && len <= self.segment && len > 0 && fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn runs(outgoing: &mut Outgoing) -> Vec<(u16, usize, usize)> {
        let mut found = Vec::new();
        while let Some((run, bytes)) = outgoing.first() {
            found.push((run.to.port(), run.segment, bytes.len()));
            outgoing.sent(usize::MAX);
        }
        found
    }

    #[test]
    fn datagrams_of_one_size_to_one_peer_are_a_run_that_a_shorter_one_ends() {
        let mut outgoing = Outgoing::new();
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (1, 100), (1, 101)] {
            assert!(outgoing.push(to(port), &vec![7; len]));
        }
        let expected = [(1, 100, 260), (1, 60, 60), (2, 60, 60), (1, 100, 100), (1, 101, 101)];
        assert_eq!(runs(&mut outgoing), expected);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_run_is_no_longer_than_a_datagram_and_has_no_more_segments_than_kernels_take() {
        let mut outgoing = Outgoing::new();
        (0..65).for_each(|_| assert!(outgoing.push(to(1), &[7; 10])));
        (0..44).for_each(|_| assert!(outgoing.push(to(2), &[7; 1500])));
        assert_eq!(runs(&mut outgoing), [(1, 10, 640), (1, 10, 10), (2, 1500, 64_500), (2, 1500, 1500)]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_runs() {
        let mut outgoing = Outgoing::new();
        let count = (0..1000).take_while(|_| outgoing.push(to(1), &[7; 1500])).count();
        assert_eq!(count, (CAPACITY - MAX_MESSAGE) / 1500 + 1);
        runs(&mut outgoing);
        let count = (0..1000).take_while(|port| outgoing.push(to(*port), &[7; 32])).count();
        assert_eq!(count, MAX_RUNS);
        outgoing.sent(10);
        assert_eq!(outgoing.first().unwrap().1.len(), 22);
    }
}
