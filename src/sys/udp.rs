//! UDP as fast as the kernel has it: several datagrams of one size in one call, cut and put together by the kernel (UDP_SEGMENT, UDP_GRO,
//! udp(7)).

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Room for one control message of four bytes, aligned as the kernel demands.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// What came in one call: datagrams of `segment` bytes, the last of which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) len: usize,
    pub(crate) segment: usize,
    pub(crate) from: SocketAddr,
}

/// Makes a socket that never blocks, bound to `address`. One of IPv6 on all addresses takes IPv4, too.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just opened the descriptor, and nobody else knows it.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    let (raw, len) = raw_address(address);
    // SAFETY: the pointer leads to an address that outlives the call, and `len` is its length.
    check(unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&raw).cast(), len) })?;
    Ok(socket)
}

/// Asks for buffers of this many bytes each way. The host may have a lower limit, which holds then.
pub(crate) fn set_udp_buffers(socket: &UdpSocket, bytes: libc::c_int) {
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        let _ = set(socket, libc::SOL_SOCKET, option, bytes);
    }
}

/// Lets the kernel hand over several datagrams of one sender at once. Without that, it hands over each by itself.
pub(crate) fn join_arrivals(socket: &UdpSocket) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Sends `bytes` to one address: as a single datagram, or as datagrams of `segment` bytes if they are longer than that. A socket of IPv6
/// takes an IPv4 address in its mapped form.
///
/// # Errors
/// What the host reports: `WouldBlock` if there is no room; `EIO` or `EINVAL` if the way there cannot be used with segments.
pub(crate) fn send_segments(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
    let (mut name, name_len) = raw_address(to);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: the type is plain integers and pointers, for which zero stands for none.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = ptr::from_mut(&mut name).cast();
    message.msg_namelen = name_len;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if bytes.len() > segment {
        let size = u16::try_from(segment).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: a function of an integer.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(2) } as _;
        // SAFETY: the message has room for a header, which is aligned.
        if let Some(header) = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_mut() } {
            header.cmsg_level = libc::SOL_UDP;
            header.cmsg_type = libc::UDP_SEGMENT;
            // SAFETY: a function of an integer.
            header.cmsg_len = unsafe { libc::CMSG_LEN(2) } as _;
            // SAFETY: there is room for two bytes behind the header: `CMSG_SPACE(2)` counts them.
            unsafe { ptr::write_unaligned(libc::CMSG_DATA(header).cast(), size) };
        }
    }
    // SAFETY: the message leads to values that outlive the call; the kernel only reads the bytes.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives into `bytes`, which has room for the largest datagram.
///
/// # Errors
/// What the host reports: `WouldBlock` if there is nothing.
pub(crate) fn receive_segments(socket: &UdpSocket, bytes: &mut [u8]) -> io::Result<Arrived> {
    // SAFETY: the type is plain integers, for which zero is a value.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: the type is plain integers and pointers, for which zero stands for none.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = ptr::from_mut(&mut name).cast();
    message.msg_namelen = libc::socklen_t::try_from(mem::size_of::<libc::sockaddr_storage>()).unwrap_or_default();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of::<Control>() as _;
    // SAFETY: the message leads to values that outlive the call, with their lengths; the bytes are ours alone.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let len = len.min(bytes.len());
    let segment = segment_of(&message).filter(|segment| *segment > 0).unwrap_or(len);
    let from = address_of(&name).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    Ok(Arrived { len, segment, from })
}

/// The size that the kernel says that what it has put together is of.
fn segment_of(message: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled in the message, whose control part is still there.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
        return None;
    }
    // SAFETY: the kernel has put an integer behind such a header.
    let size = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::c_int>()) };
    usize::try_from(size).ok()
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: the type is plain integers, for which zero is a value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let len = match address {
        SocketAddr::V4(address) => {
            let raw = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than any address, and aligned for each.
            unsafe { ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>().write(raw) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: the storage is larger than any address, and aligned for each.
            unsafe { ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, libc::socklen_t::try_from(len).unwrap_or_default())
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or_default()
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger than any address, aligned for each, and the family says that it is this one.
            let raw = unsafe { ptr::from_ref(storage).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the storage is larger than any address, aligned for each, and the family says that it is this one.
            let raw = unsafe { ptr::from_ref(storage).cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(mem::size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the pointer leads to an integer that outlives the call, and `len` is its length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, ptr::from_ref(&value).cast(), len) }).map(|_| ())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(address: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
        let receiver = bind_udp(address.parse().unwrap()).unwrap();
        join_arrivals(&receiver).unwrap();
        let to = receiver.local_addr().unwrap();
        let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        (bind_udp(any.parse().unwrap()).unwrap(), receiver, to)
    }

    /// Everything that has come, cut where datagrams were.
    fn arrived(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let (mut room, mut all) = (vec![0; 1 << 16], Vec::new());
        while let Ok(arrived) = receive_segments(socket, &mut room) {
            all.extend(room[..arrived.len].chunks(arrived.segment.max(1)).map(<[u8]>::to_vec));
        }
        all
    }

    #[test]
    fn datagrams_of_one_size_are_sent_in_one_call_and_come_as_they_were() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, receiver, to) = pair(address);
            let bytes: Vec<u8> = (0..4500_u32).map(|n| n.to_le_bytes()[0]).collect();
            send_segments(&sender, to, &bytes, 1000).unwrap();
            send_segments(&sender, to, &[7; 10], 10).unwrap();
            let came = arrived(&receiver);
            assert_eq!(came.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 1000, 1000, 500, 10]);
            assert_eq!(came[..5].concat(), bytes);
        }
    }

    #[test]
    fn a_socket_on_all_addresses_speaks_both_families() {
        let both = bind_udp("[::]:0".parse().unwrap()).unwrap();
        let port = both.local_addr().unwrap().port();
        let (four, _, _) = pair("127.0.0.1:0");
        send_segments(&four, ([127, 0, 0, 1], port).into(), b"to", 2).unwrap();
        let mut room = [0; 16];
        let arrived = receive_segments(&both, &mut room).unwrap();
        assert_eq!((arrived.len, arrived.from.ip().to_canonical()), (2, [127, 0, 0, 1].into()));
        let mapped = (std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped(), four.local_addr().unwrap().port());
        send_segments(&both, mapped.into(), b"back", 4).unwrap();
        assert_eq!(receive_segments(&four, &mut room).unwrap().len, 4);
        assert_eq!(receive_segments(&four, &mut room).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
