//! A TAP's two ends: the one that a monitor holds, and the host's network.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const VNET_HEADER: libc::c_int = 12;

/// The monitor's end of the TAP of this name, as a network card without offloads opens it.
pub fn open(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeros is a valid request.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    put_name(&mut request.ifr_name, name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the pointers lead to what each call reads and writes.
    let results = unsafe {
        [
            libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request),
            libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &VNET_HEADER),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// A socket that sends whole frames out of the network interface of this name, past its queueing.
pub fn packet_socket(name: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the string is valid for the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: plain integers. Protocol 0: it receives nothing.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if index == 0 || socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let on: libc::c_int = 1;
    // SAFETY: the pointers lead to values of the lengths that are given with them.
    let results = unsafe {
        [
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32),
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            ),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn put_name(room: &mut [libc::c_char], name: &str) -> io::Result<()> {
    if name.len() >= room.len() {
        return Err(io::Error::other(format!("`{name}` is too long for an interface's name")));
    }
    room.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    Ok(())
}
