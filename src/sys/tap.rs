//! A TAP device: Ethernet frames with a virtio-net header in front, by file descriptor.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use super::link::attached_queues;
use crate::error::{Error, ErrorKind, Result};

/// Each frame comes and goes with a header of this many bytes: that of virtio 1.0, with the number of buffers.
const HEADER_LEN: libc::c_int = 12;

const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

const IN_USE: &str = "is in use by another process or VM";

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

/// A TAP device by its name, with one queue attached so far.
#[derive(Debug)]
pub(crate) struct TapDevice {
    name: String,
    index: libc::c_uint,
    multi_queue: bool,
    first: Tap,
}

/// One queue of a TAP device; detached when dropped. Non-blocking.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    fd: Arc<OwnedFd>,
}

impl TapDevice {
    /// Attaches to a TAP device that exists. `name` must have been checked.
    pub(crate) fn open(name: &str) -> Result<Self> {
        // Asked before, since attaching to one that does not exist would make it, if we are privileged.
        let index = interface_index(name);
        if index == 0 {
            let why = format!("does not exist (make it with: ip tuntap add dev {name} mode tap)");
            return Err(refused(name, &why));
        }
        // The kernel wants to be told what kind of device it is.
        let (first, multi_queue) = match attach(name, index, FLAGS) {
            Err(AttachError::OtherKind(_)) => (attach(name, index, FLAGS | libc::IFF_MULTI_QUEUE), true),
            other => (other, false),
        };
        let first = first.map_err(AttachError::into_inner)?;
        let device = Self { name: name.to_owned(), index, multi_queue, first };
        device.check_alone(1)?;
        Ok(device)
    }

    /// Whether it was made with several queues.
    pub(crate) fn is_multi_queue(&self) -> bool {
        self.multi_queue
    }

    /// Attaches more queues, up to `count`; one that was made with a single queue has no more.
    pub(crate) fn attach_all(self, count: u16) -> Result<Vec<Tap>> {
        if count > 1 && !self.multi_queue {
            let name = &self.name;
            let why = format!(
                "has one queue, {count} were asked for (make it with: ip tuntap add dev {name} mode tap multi_queue)"
            );
            return Err(refused(name, &why));
        }
        let mut queues = vec![self.first.clone()];
        for _ in 1..count {
            let queue = attach(&self.name, self.index, FLAGS | libc::IFF_MULTI_QUEUE);
            queues.push(queue.map_err(AttachError::into_inner)?);
        }
        self.check_alone(count)?;
        Ok(queues)
    }

    /// Attaches one queue more, as any program may.
    #[cfg(test)]
    pub(crate) fn attach_another(&self) -> Result<Tap> {
        attach(&self.name, self.index, FLAGS | libc::IFF_MULTI_QUEUE).map_err(AttachError::into_inner)
    }

    /// The kernel lets anyone who may use a device with several queues attach another one, and gives it some of the frames.
    fn check_alone(&self, own: u16) -> Result<()> {
        if !self.multi_queue {
            return Ok(());
        }
        match attached_queues(self.index) {
            Ok(count) if count <= own.into() => Ok(()),
            Ok(_) => Err(refused(&self.name, IN_USE)),
            Err(e) => Err(refused(&self.name, "may be in use, which cannot be found out").with_source(e)),
        }
    }
}

impl Tap {
    /// Takes descriptors that the caller has attached to one device.
    pub(crate) fn from_fds(fds: Vec<OwnedFd>) -> Result<Vec<Self>> {
        let mut first: Option<(libc::c_int, [libc::c_char; libc::IFNAMSIZ])> = None;
        let mut taps: Vec<Self> = Vec::new();
        for fd in fds {
            let number = fd.as_raw_fd();
            let (tap, name) = Self::from_fd(fd)?;
            let (first_number, first_name) = *first.get_or_insert((number, name));
            if name != first_name {
                let message = format!("descriptors {first_number} and {number} are of different TAP devices");
                return Err(Error::new(ErrorKind::Network, message));
            }
            if let Some(other) = taps.iter().find(|other| is_same_file(other.as_fd(), tap.as_fd())) {
                let other = other.fd.as_raw_fd();
                let message = format!(
                    "descriptors {other} and {number} are copies of each other; each queue of a TAP device has one of its own"
                );
                return Err(Error::new(ErrorKind::Network, message));
            }
            taps.push(tap);
        }
        Ok(taps)
    }

    /// Takes a descriptor that the caller has attached; says to which device.
    fn from_fd(fd: OwnedFd) -> Result<(Self, [libc::c_char; libc::IFNAMSIZ])> {
        let refused = |why: &str| Error::new(ErrorKind::Network, format!("descriptor {} {why}", fd.as_raw_fd()));
        let (flags, name) = attached_to(fd.as_fd())
            .map_err(|e| refused("is not one of a TAP device that was attached to").with_source(e))?;
        if flags & (FLAGS | libc::IFF_TUN) != FLAGS {
            return Err(refused("must be of a TAP device attached with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"));
        }
        let number = fd.as_raw_fd();
        let tap = set_nonblocking(fd.as_fd()).and_then(|()| Self::with_header(fd)).map_err(|e| {
            let message = format!("descriptor {number} takes no virtio-net header of 12 bytes");
            Error::new(ErrorKind::Network, message).with_source(e)
        })?;
        Ok((tap, name))
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
        *to = from.cast_signed();
    }
    request
}

/// Why a queue was not attached.
enum AttachError {
    /// The device is not one for these flags.
    OtherKind(Error),
    Other(Error),
}

impl AttachError {
    fn into_inner(self) -> Error {
        match self {
            Self::OtherKind(error) | Self::Other(error) => error,
        }
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Network, format!("TAP device {name} {why}"))
}

fn cannot_open(e: io::Error) -> Error {
    let remedy = match e.kind() {
        io::ErrorKind::PermissionDenied => {
            ": this user may not, or a jail does not keep it; a descriptor that was attached elsewhere can be given instead"
        }
        io::ErrorKind::NotFound => ": the kernel's module tun makes it, and a container must be given it",
        _ => "",
    };
    Error::new(ErrorKind::Network, format!("cannot open /dev/net/tun{remedy}")).with_source(e)
}

/// Attaches a queue to the device that has this name and index.
fn attach(name: &str, index: libc::c_uint, flags: libc::c_int) -> std::result::Result<Tap, AttachError> {
    let other = |error| AttachError::Other(error);
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.map_err(|e| other(cannot_open(e)))?;
    let mut request = request(name);
    #[expect(clippy::cast_possible_truncation, reason = "the flags of a device are 16 bits")]
    let flags = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and the pointer leads to the structure that the call reads and writes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) }).map_err(|e| {
        match e.raw_os_error() {
            Some(libc::EBUSY) => other(refused(name, IN_USE).with_source(e)),
            Some(libc::E2BIG) => other(refused(name, "has no more queues").with_source(e)),
            Some(libc::EPERM) => other(
                refused(name, "may not be used by this user (ip tuntap add ... user NAME sets who may)").with_source(e),
            ),
            Some(libc::EINVAL) => AttachError::OtherKind(refused(name, "is not a TAP device").with_source(e)),
            _ => other(refused(name, "cannot be attached to").with_source(e)),
        }
    })?;
    if interface_index(name) != index {
        return Err(other(refused(name, "was replaced while we attached to it")));
    }
    Tap::with_header(file.into())
        .map_err(|e| other(refused(name, "takes no virtio-net header of 12 bytes").with_source(e)))
}

/// With which flags, and to which device, a descriptor is attached.
fn attached_to(fd: BorrowedFd<'_>) -> io::Result<(libc::c_int, [libc::c_char; libc::IFNAMSIZ])> {
    let mut request = request("");
    // SAFETY: as in `attach`; on a descriptor of another kind the call fails and writes nothing.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    // SAFETY: the call has filled the flags, and any bits are a valid short.
    Ok((libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & 0xffff, request.ifr_name))
}

/// Whether two descriptors are copies of each other. A host that does not tell (`CONFIG_KCMP`, a sandbox) takes them for two.
fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    // Of `<linux/kcmp.h>`.
    const KCMP_FILE: libc::c_long = 0;
    let number = |fd: BorrowedFd<'_>| libc::c_long::from(fd.as_raw_fd());
    // SAFETY: both calls take plain numbers.
    let order = unsafe {
        let this = libc::getpid();
        libc::syscall(libc::SYS_kcmp, this, this, KCMP_FILE, number(one), number(other))
    };
    order == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_node_that_cannot_be_opened_is_answered_with_what_to_do() {
        for (number, remedy) in
            [(libc::EACCES, "a descriptor that was attached elsewhere"), (libc::ENOENT, "module tun")]
        {
            let error = cannot_open(io::Error::from_raw_os_error(number)).to_string();
            assert!(error.starts_with("cannot open /dev/net/tun: ") && error.contains(remedy), "{error}");
        }
        assert_eq!(cannot_open(io::Error::from_raw_os_error(libc::EIO)).to_string(), "cannot open /dev/net/tun");
    }
}
