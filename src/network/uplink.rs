//! Where a tunnel joins a network: whole IPv6 packets out, whole IPv6 packets in.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::outbox::Outbox;
use super::prefix::Prefix;
use super::reason::Refusal;
use crate::error::Result;

/// A tunnel's end of a network. Packets for the addresses behind it come out here, and what the tunnel brings from there goes in.
///
/// # Threads
/// One thread, the tunnel's own, has it, and makes all calls. None of them blocks. A VM's I/O thread that has a packet for the tunnel
/// copies it once, from the guest's memory into storage of a bounded queue, and goes on; if the queue is full, the packet is dropped and
/// [counted](Refusal::NoRoom). When its batch ends, it calls the function that the uplink was made with, which wakes the tunnel's
/// thread: once, however many packets were put in, until the tunnel [takes](Self::drain) them. That function runs on the VM's thread, so
/// it must not block: to write to an eventfd or to use a [`Waker`](crate::event::Waker) is what it is for.
///
/// # Packets
/// A packet that comes out begins with its IPv6 header, was checked, has whole checksums, is no longer than the uplink's MTU, and is a
/// copy that its guest cannot change any more. So a tunnel may seal it right from the bytes that it is lent. A packet that goes in is
/// checked like a guest's: the network's rules decide, and its source must lie behind this uplink.
pub struct Uplink {
    outbox: Arc<Outbox>,
    waiting: VecDeque<Vec<u8>>,
    /// Storage of packets that the tunnel has taken.
    spent: Vec<Vec<u8>>,
    inward: Box<dyn Inward>,
    mtu: u16,
}

/// What became of a packet that a tunnel brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Injected {
    /// It is on its way to a machine of the network.
    Delivered,
    /// The network itself has dealt with it: it asked for an answer that is on its way.
    Answered,
    /// It was dropped, and counted.
    Dropped(Refusal),
}

/// The network, as an uplink sees it.
pub(super) trait Inward: Send {
    fn inject(&mut self, packet: &[u8]) -> Injected;

    /// The batch ends: those who got packets are woken.
    fn flush(&mut self);

    fn set_routes(&mut self, routes: &[Prefix]) -> Result<()>;
}

impl Uplink {
    pub(super) fn new(outbox: Arc<Outbox>, mtu: u16, inward: Box<dyn Inward>) -> Self {
        Self { outbox, waiting: VecDeque::new(), spent: Vec::new(), inward, mtu }
    }

    /// Lends the packets that have come to `each`, in order, until there are none or `most` were taken, and returns how many those are.
    /// `each` says whether it has taken the packet; if not, the call ends, and the packet is the first the next time.
    ///
    /// Call this whenever the uplink's function has been called, until it returns less than `most`.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&[u8]) -> bool) -> usize {
        let mut taken = 0usize;
        while taken < most {
            if self.waiting.is_empty() {
                self.outbox.take(&mut self.waiting, &mut self.spent);
            }
            let Some(packet) = self.waiting.front() else { break };
            if !each(packet) {
                break;
            }
            self.spent.extend(self.waiting.pop_front());
            taken = taken.saturating_add(1);
        }
        taken
    }

    /// Gives the network a packet that came from a tunnel: whole, and beginning with its IPv6 header. It was in the tunnel of a peer that
    /// may send from its source address, which the tunnel has checked.
    ///
    /// Call [`flush`](Self::flush) when the batch ends.
    pub fn inject(&mut self, packet: &[u8]) -> Injected {
        self.inward.inject(packet)
    }

    /// Wakes those who got packets.
    pub fn flush(&mut self) {
        self.inward.flush();
    }

    /// Sets which addresses lie behind this uplink, in place of those before: the allowed addresses of all of a tunnel's peers. If
    /// several of them contain an address, it does not matter which.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if one of them overlaps what lies behind another uplink, or if they
    /// are too many. Then those before stay.
    pub fn set_routes(&mut self, routes: &[Prefix]) -> Result<()> {
        self.inward.set_routes(routes)
    }

    /// Returns how long a packet that comes out may be, in bytes with its IPv6 header.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink").field("mtu", &self.mtu).finish_non_exhaustive()
    }
}

/// The other end of an uplink that is on no network, for the tests of tunnels.
#[cfg(test)]
pub(in crate::network) mod loose {
    use std::sync::Mutex;

    use super::*;

    /// What a network would do.
    #[derive(Clone)]
    pub(in crate::network) struct LooseEnd {
        outbox: Arc<Outbox>,
        injected: Arc<Mutex<Vec<Vec<u8>>>>,
        routes: Arc<Mutex<Vec<Prefix>>>,
    }

    impl LooseEnd {
        /// An uplink with room for `most` packets, and what it is joined to.
        pub(in crate::network) fn new(
            mtu: u16,
            most: usize,
            wake: impl Fn() + Send + Sync + 'static,
        ) -> (Uplink, Self) {
            let outbox = Arc::new(Outbox::new(most, wake));
            let end = Self { outbox: Arc::clone(&outbox), injected: Arc::default(), routes: Arc::default() };
            (Uplink::new(outbox, mtu, Box::new(end.clone())), end)
        }

        /// Sends packets as one batch of a guest, and says how many there was room for.
        pub(in crate::network) fn send<'a>(&self, packets: impl IntoIterator<Item = &'a [u8]>) -> usize {
            let put = packets.into_iter().filter_map(|packet| {
                let mut storage = self.outbox.storage()?;
                storage.extend_from_slice(packet);
                self.outbox.put(storage);
                Some(())
            });
            let count = put.count();
            self.outbox.ring();
            count
        }

        /// Takes what the tunnel has injected.
        pub(in crate::network) fn injected(&self) -> Vec<Vec<u8>> {
            std::mem::take(&mut self.injected.lock().unwrap())
        }

        /// What lies behind the uplink.
        pub(in crate::network) fn routes(&self) -> Vec<Prefix> {
            self.routes.lock().unwrap().clone()
        }
    }

    impl Inward for LooseEnd {
        fn inject(&mut self, packet: &[u8]) -> Injected {
            self.injected.lock().unwrap().push(packet.to_vec());
            Injected::Delivered
        }

        fn flush(&mut self) {}

        fn set_routes(&mut self, routes: &[Prefix]) -> Result<()> {
            *self.routes.lock().unwrap() = routes.to_vec();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::loose::LooseEnd;
    use super::*;

    fn counted(most: usize) -> (Uplink, LooseEnd, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        let wake = move || {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        let (uplink, end) = LooseEnd::new(1420, most, wake);
        (uplink, end, wakes)
    }

    #[test]
    fn packets_come_out_in_order_and_wake_the_tunnel_once() {
        let (mut uplink, end, wakes) = counted(8);
        assert_eq!(end.send([&[1][..], &[2]]), 2);
        assert_eq!(end.send([&[3][..]]), 1);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        let mut seen = Vec::new();
        let mut take = |packet: &[u8]| {
            seen.extend_from_slice(packet);
            packet != [2]
        };
        assert_eq!(uplink.drain(8, &mut take), 1, "the second was not taken");
        assert_eq!(uplink.drain(1, |packet| packet == [2]), 1);
        assert_eq!(uplink.drain(8, &mut take), 1);
        assert_eq!(seen, [1, 2, 3]);
        end.send([&[4][..]]);
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_tunnel_that_takes_nothing_holds_no_more_than_it_may() {
        let (mut uplink, end, wakes) = counted(3);
        assert_eq!(end.send(std::iter::repeat_n(&[7; 1000][..], 100)), 3);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        assert_eq!(uplink.drain(2, |_| true), 2);
        // What waits at the tunnel's side counts, too, and what was taken comes back when more is asked for.
        assert_eq!(end.send([&[8][..]]), 0);
        assert_eq!(uplink.drain(2, |_| true), 1);
        assert_eq!(end.send(std::iter::repeat_n(&[9; 10][..], 100)), 3);
        let mut packets = Vec::new();
        uplink.drain(9, |packet| {
            packets.push(packet.to_vec());
            true
        });
        assert_eq!(packets, [[9; 10]; 3], "storage that is used again holds nothing of before");
    }

    #[test]
    fn no_packet_is_left_when_senders_and_tunnel_run_at_once() {
        const EACH: usize = 10_000;
        let (wakes, woken) = std::sync::mpsc::channel();
        let (mut uplink, end) = LooseEnd::new(1420, 64, move || wakes.send(()).unwrap());
        let senders: Vec<_> = (0..3u8)
            .map(|sender| {
                let end = end.clone();
                thread::spawn(move || {
                    for n in 0..EACH {
                        let [low, high, ..] = n.to_le_bytes();
                        while end.send([&[sender, low, high][..]]) == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0usize; 3];
        while next.iter().sum::<usize>() < 3 * EACH {
            woken.recv().unwrap();
            uplink.drain(usize::MAX, |packet| {
                let [sender, low, high] = packet.try_into().unwrap();
                assert_eq!(usize::from(u16::from_le_bytes([low, high])), next[usize::from(sender)]);
                next[usize::from(sender)] += 1;
                true
            });
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn what_a_tunnel_says_reaches_the_network() {
        let (mut uplink, end, _) = counted(1);
        assert_eq!((uplink.inject(&[0x60, 1]), uplink.mtu()), (Injected::Delivered, 1420));
        uplink.set_routes(&[Prefix::ALL]).unwrap();
        assert_eq!((end.injected(), end.routes()), (vec![vec![0x60, 1]], vec![Prefix::ALL]));
    }
}
