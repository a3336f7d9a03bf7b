//! A TAP device: Ethernet frames with a virtio-net header in front, by file descriptor.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Each frame comes and goes with a header of this many bytes: that of virtio 1.0, with the number of buffers.
const HEADER_LEN: libc::c_int = 12;

const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// The work on frames that a sender may leave undone, because the receiver can do it or do without (virtio 5.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offloads {
    /// Frames without a full checksum.
    pub checksum: bool,
    /// TCP over IPv4 in segments larger than the MTU. Needs `checksum`.
    pub tso4: bool,
    /// TCP over IPv6 in segments larger than the MTU. Needs `checksum`.
    pub tso6: bool,
    /// Such segments with explicit congestion notification (ECN). Needs `tso4` or `tso6`.
    pub ecn: bool,
}

/// An attached TAP device; detached when dropped. Non-blocking.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    fd: Arc<OwnedFd>,
}

impl Tap {
    /// Attaches to a TAP device that exists. `name` must have been checked.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let refused = |why: &str| Error::new(ErrorKind::Network, format!("TAP device {name} {why}"));
        // Asked before, since attaching to one that does not exist would make it, if we are privileged.
        let index = interface_index(name);
        if index == 0 {
            return Err(refused(&format!("does not exist (make it with: ip tuntap add dev {name} mode tap)")));
        }
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.map_err(|e| Error::new(ErrorKind::Network, "cannot open /dev/net/tun").with_source(e))?;
        attach(&file, name).map_err(|e| {
            let why = match e.raw_os_error() {
                Some(libc::EBUSY) => "is in use by another process or VM",
                Some(libc::EPERM) => "may not be used by this user (ip tuntap add ... user NAME sets who may)",
                Some(libc::EINVAL) => "is not a TAP device with one queue",
                _ => "cannot be attached to",
            };
            refused(why).with_source(e)
        })?;
        if interface_index(name) != index {
            return Err(refused("was replaced while we attached to it"));
        }
        Self::with_header(file.into()).map_err(|e| refused("takes no virtio-net header of 12 bytes").with_source(e))
    }

    /// Takes a descriptor that the caller has attached.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let refused = |why: &str| Error::new(ErrorKind::Network, format!("descriptor {} {why}", fd.as_raw_fd()));
        let flags = attached_flags(fd.as_fd())
            .map_err(|e| refused("is not one of a TAP device that was attached to").with_source(e))?;
        if flags & (FLAGS | libc::IFF_TUN) != FLAGS {
            return Err(refused("must be of a TAP device attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"));
        }
        let number = fd.as_raw_fd();
        set_nonblocking(fd.as_fd()).and_then(|()| Self::with_header(fd)).map_err(|e| {
            let message = format!("descriptor {number} takes no virtio-net header of 12 bytes");
            Error::new(ErrorKind::Network, message).with_source(e)
        })
    }

    fn with_header(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open, and the kernel reads one int from the pointer.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &HEADER_LEN) })?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Says what the receiver of the device's frames can cope with.
    pub(crate) fn set_offloads(&self, offloads: Offloads) -> Result<()> {
        let wanted = [
            (offloads.checksum, libc::TUN_F_CSUM),
            (offloads.tso4, libc::TUN_F_TSO4),
            (offloads.tso6, libc::TUN_F_TSO6),
            (offloads.ecn, libc::TUN_F_TSO_ECN),
        ];
        let mask = wanted.into_iter().filter(|(on, _)| *on).fold(0, |mask, (_, flag)| mask | flag);
        // SAFETY: the descriptor is open, and the call takes a plain number.
        check(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(mask)) })
            .map_err(|e| Error::new(ErrorKind::Network, "the TAP device refuses the offloads").with_source(e))
    }

    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all-zero bytes are a valid ifreq: an empty name, and numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero to end the name.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    // SAFETY: the descriptor is open, and the pointer leads to the structure that the call reads and writes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

fn attached_flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut request = request("");
    // SAFETY: as in `attach`; on a descriptor of another kind the call fails and writes nothing.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    // SAFETY: the call has filled the flags, and any bits are a valid short.
    Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & 0xffff)
}

fn interface_index(name: &str) -> libc::c_uint {
    // SAFETY: the pointer is valid for the call.
    CString::new(name).map_or(0, |name| unsafe { libc::if_nametoindex(name.as_ptr()) })
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and F_GETFL takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    // SAFETY: the descriptor is open, and F_SETFL takes a plain number.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
