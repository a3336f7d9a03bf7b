//! What the kernel says about a network interface by rtnetlink: how many queues of a TAP device are attached.

use std::ffi::c_uint;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;

/// Linux gives an answer of a few KiB.
const ANSWER_BYTES: usize = 32 << 10;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER_BYTES: u8 = 32;

/// Of `<linux/if_link.h>`, in Linux since 4.16.
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// Of `<linux/netlink.h>`, as wide as the header has it.
const NLM_F_REQUEST: u16 = 1;

/// How many descriptors, of whatever process, are attached to the TAP device with this index, which was made with several
/// queues. Blocks no longer than the kernel takes to answer.
pub(super) fn attached_queues(index: c_uint) -> io::Result<u32> {
    let answer = ask(index)?;
    let attributes = answer.get(HEADER_BYTES.into()..).unwrap_or_default();
    let info = find(attributes, libc::IFLA_LINKINFO).and_then(|info| find(info, libc::IFLA_INFO_DATA));
    let count = |kind| info.and_then(|info| find(info, kind)).and_then(|value| value.first_chunk().copied());
    match (count(IFLA_TUN_NUM_QUEUES), count(IFLA_TUN_NUM_DISABLED_QUEUES)) {
        (Some(enabled), Some(disabled)) => Ok(u32::from_ne_bytes(enabled).saturating_add(u32::from_ne_bytes(disabled))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel does not say how many queues are attached")),
    }
}

fn ask(index: c_uint) -> io::Result<Vec<u8>> {
    // SAFETY: the call takes plain numbers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nothing else owns it.
    let mut socket = unsafe { File::from_raw_fd(fd) };
    let mut request = Vec::with_capacity(HEADER_BYTES.into());
    request.extend(u32::from(HEADER_BYTES).to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender, and the family and type of the interface, all of which may be 0.
    request.extend([0; 12]);
    request.extend(index.to_ne_bytes());
    request.resize(HEADER_BYTES.into(), 0);
    socket.write_all(&request)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let len = socket.read(&mut answer)?;
    answer.truncate(len);
    let kind = answer.get(4..6).and_then(|bytes| bytes.first_chunk()).map(|bytes| u16::from_ne_bytes(*bytes));
    if kind != Some(libc::RTM_NEWLINK) {
        let code = answer.get(16..20).and_then(|bytes| bytes.first_chunk()).map(|bytes| i32::from_ne_bytes(*bytes));
        return Err(io::Error::from_raw_os_error(code.map_or(libc::EIO, i32::wrapping_neg)));
    }
    Ok(answer)
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        let (len, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = attributes.get(4..len)?;
        // Two bits say how the value is coded.
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = value.len() as u16 + 4;
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_attribute_is_found_behind_others_and_inside_one() {
        let inner = [attribute(1, b"abc"), attribute(2, b"defgh")].concat();
        let outer = [attribute(3, b"x"), attribute(0x8000 | 4, &inner)].concat();
        assert_eq!(find(&outer, 4).and_then(|inner| find(inner, 2)), Some(&b"defgh"[..]));
        assert_eq!(find(&outer, 5), None);
    }

    #[test]
    fn attributes_that_are_cut_or_too_short_end_the_search() {
        for bytes in [&b""[..], b"abc", &[0, 0, 0, 0], &[3, 0, 0, 0], &[9, 0, 7, 0, 1]] {
            assert_eq!(find(bytes, 7), None, "{bytes:?}");
        }
    }

    #[test]
    fn an_interface_that_is_none_is_an_error() {
        // The loopback device has no queues, and no device has the last index.
        assert!(attached_queues(1).is_err());
        assert_eq!(attached_queues(i32::MAX as c_uint).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
