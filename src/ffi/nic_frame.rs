//! Frames as a backend in C gets them, and what the two sides of a link may leave to each other.

use libc::iovec;

use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE};
use crate::net::{Offloads, VnetHeader};

/// The length in bytes of the header that belongs to each frame, `struct virtio_net_hdr_v1` of Linux's
/// `<linux/virtio_net.h>`: it says what the sender has left to the receiver.
pub const VMCELL_NIC_HEADER_BYTES: usize = 12;
const _: () = assert!(VMCELL_NIC_HEADER_BYTES == VnetHeader::LEN);

/// Checksums of TCP and UDP.
pub const VMCELL_OFFLOAD_CHECKSUM: u32 = 1;
/// Cutting TCP over IPv4 into segments. Needs VMCELL_OFFLOAD_CHECKSUM.
pub const VMCELL_OFFLOAD_TSO4: u32 = 2;
/// Cutting TCP over IPv6 into segments. Needs VMCELL_OFFLOAD_CHECKSUM.
pub const VMCELL_OFFLOAD_TSO6: u32 = 4;
/// Cutting segments with congestion notification. Needs VMCELL_OFFLOAD_TSO4 or VMCELL_OFFLOAD_TSO6.
pub const VMCELL_OFFLOAD_ECN: u32 = 8;

const ALL: u32 = VMCELL_OFFLOAD_CHECKSUM | VMCELL_OFFLOAD_TSO4 | VMCELL_OFFLOAD_TSO6 | VMCELL_OFFLOAD_ECN;

/// A frame that the guest sends, valid until `send` returns.
#[repr(C)]
pub struct NicFrame {
    /// The size of this structure, in bytes, in this version of the library.
    pub struct_size: usize,
    /// VMCELL_NIC_HEADER_BYTES bytes that say what the guest has left undone: no more than the backend offers, and nothing that
    /// lies outside the frame. They are a copy, which the guest cannot change.
    pub header: *const u8,
    /// The frame's length in bytes without the header, 14 to 65553. It begins with the Ethernet address that it is for.
    pub len: usize,
    /// Where the frame lies, as writev and its relatives take it: `part_count` parts, in order, `len` bytes in all. They lie in
    /// the guest's memory, and the guest may change their bytes at any time: copy what you check before you check it.
    pub parts: *const iovec,
    /// The number of parts.
    pub part_count: usize,
}

pub(super) fn offloads_of(bits: u32) -> FfiResult<Offloads> {
    if bits & !ALL != 0 {
        let message = format!("info->offloads is {bits:#x}, allowed are sums of VMCELL_OFFLOAD_*, {ALL:#x} at most");
        return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, message));
    }
    let mut offloads = Offloads::NONE;
    offloads.checksum = bits & VMCELL_OFFLOAD_CHECKSUM != 0;
    offloads.tso4 = bits & VMCELL_OFFLOAD_TSO4 != 0;
    offloads.tso6 = bits & VMCELL_OFFLOAD_TSO6 != 0;
    offloads.ecn = bits & VMCELL_OFFLOAD_ECN != 0;
    Ok(offloads)
}

pub(super) fn bits_of(offloads: Offloads) -> u32 {
    let bit = |bit: u32, on: bool| if on { bit } else { 0 };
    bit(VMCELL_OFFLOAD_CHECKSUM, offloads.checksum)
        | bit(VMCELL_OFFLOAD_TSO4, offloads.tso4)
        | bit(VMCELL_OFFLOAD_TSO6, offloads.tso6)
        | bit(VMCELL_OFFLOAD_ECN, offloads.ecn)
}
