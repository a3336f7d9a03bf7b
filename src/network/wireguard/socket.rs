//! The UDP socket of a tunnel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use super::counters::Counters;
use super::outgoing::Outgoing;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{bind_udp, join_arrivals, receive_segments, send_segments, set_udp_buffers};

/// What is asked for as the kernel's buffers; hosts give less unless they are set up for more (net.core.rmem_max, wmem_max).
const BUFFERS: i32 = 4 << 20;
/// What one call receives at most.
const ROOM: usize = 1 << 16;

pub(super) struct Socket {
    pub(super) udp: Arc<UdpSocket>,
    local: SocketAddr,
    /// The kernel takes datagrams of one size in one call.
    joins: bool,
    /// The kernel has no room now.
    pub(super) is_full: bool,
    room: Box<[u8]>,
}

/// What came in one call.
pub(super) struct Batch<'a> {
    pub(super) bytes: &'a [u8],
    segment: usize,
    pub(super) from: SocketAddr,
}

impl<'a> Batch<'a> {
    /// The datagrams, one by one. A batch without bytes is one datagram without bytes.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        self.bytes.chunks(self.segment).chain(empty)
    }
}

impl Socket {
    /// Binds a port, or one that is free. Without an address, that is all of the host's, of both families if it has both.
    pub(super) fn bind(address: Option<IpAddr>, port: u16) -> Result<Self> {
        let udp = match address {
            Some(address) => bind_udp((address, port).into()),
            None => bind_udp((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match error.raw_os_error() {
                // A host without IPv6.
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => bind_udp((Ipv4Addr::UNSPECIFIED, port).into()),
                _ => Err(error),
            }),
        };
        let shown = address.map_or("all addresses".to_owned(), |address| address.to_string());
        let failed = |cause: io::Error| {
            let message = format!("cannot bind UDP port {port} of {shown} for a tunnel");
            Error::new(ErrorKind::Network, message).with_source(cause)
        };
        let udp = udp.map_err(failed)?;
        let local = udp.local_addr().map_err(failed)?;
        set_udp_buffers(&udp, BUFFERS);
        // Kernels before 5.0 hand over each datagram by itself.
        let _ = join_arrivals(&udp);
        Ok(Self { udp: Arc::new(udp), local, joins: true, is_full: false, room: vec![0; ROOM].into() })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives what one call gives.
    pub(super) fn receive(&mut self) -> Option<Batch<'_>> {
        // An error is no reason to end: the next datagram may be one of a peer's.
        let arrived = receive_segments(&self.udp, &mut self.room).ok()?;
        let bytes = self.room.get(..arrived.len)?;
        Some(Batch { bytes, segment: arrived.segment.max(1), from: arrived.from })
    }

    /// Sends what waits, until the kernel has no room.
    pub(super) fn send(&mut self, outgoing: &mut Outgoing, counters: &Counters) {
        self.is_full = false;
        while let Some((run, bytes)) = outgoing.first() {
            let single = !self.joins || bytes.len() <= run.segment;
            let bytes = if single { bytes.get(..run.segment).unwrap_or(bytes) } else { bytes };
            let sent = bytes.len();
            match send_segments(&self.udp, self.reachable(run.to), bytes, run.segment) {
                Ok(()) => outgoing.sent(sent),
                Err(error) => match (error.kind(), error.raw_os_error()) {
                    (io::ErrorKind::WouldBlock, _) => return self.is_full = true,
                    (io::ErrorKind::Interrupted, _) => {}
                    // The way there goes over something that does not cut.
                    (_, Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) if !single => self.joins = false,
                    _ => {
                        counters.dropped_send_failed.add(1);
                        outgoing.sent(sent);
                    }
                },
            }
        }
    }

    /// An address as this socket has it.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.local.is_ipv6() => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &mut Socket) -> Vec<usize> {
        let mut all = Vec::new();
        while let Some(batch) = socket.receive() {
            all.extend(batch.datagrams().map(<[u8]>::len));
        }
        all
    }

    #[test]
    fn runs_arrive_as_the_datagrams_that_they_are_with_and_without_help_of_the_kernel() {
        let localhost = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (mut one, mut two) = (Socket::bind(None, 0).unwrap(), Socket::bind(localhost, 0).unwrap());
        for joins in [true, false] {
            one.joins = joins;
            let (mut outgoing, counters) = (Outgoing::new(), Counters::default());
            [100, 100, 50, 200].iter().for_each(|len| assert!(outgoing.push(two.local(), &vec![7; *len])));
            one.send(&mut outgoing, &counters);
            assert!(outgoing.is_empty() && !one.is_full);
            assert_eq!(received(&mut two), [100, 100, 50, 200]);
        }
    }

    #[test]
    fn what_the_host_does_not_send_is_counted_and_does_not_hold_up_the_rest() {
        let localhost = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (mut one, mut two) = (Socket::bind(localhost, 0).unwrap(), Socket::bind(localhost, 0).unwrap());
        let (mut outgoing, counters) = (Outgoing::new(), Counters::default());
        // An address of the other family, and one without a port.
        outgoing.push("[::1]:9".parse().unwrap(), &[7; 10]);
        outgoing.push(([127, 0, 0, 1], 0).into(), &[7; 10]);
        outgoing.push(two.local(), &[7; 10]);
        one.send(&mut outgoing, &counters);
        assert_eq!((counters.dropped_send_failed.get(), received(&mut two)), (2, vec![10]));
    }

    #[test]
    fn a_port_that_is_taken_is_refused_by_its_number() {
        let taken = Socket::bind(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0).unwrap();
        let message = Socket::bind(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), taken.local().port()).err().unwrap();
        assert!(message.chain().contains(&format!("UDP port {} of 127.0.0.1", taken.local().port())), "{message}");
    }
}
