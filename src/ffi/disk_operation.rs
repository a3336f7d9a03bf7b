//! Operations of a disk as a backend in C gets them.

use std::sync::Arc;

use libc::iovec;

use crate::block::{Done, Operation, Tag};
use crate::memory::Buffer;

/// Fill the parts with what lies on the disk from `at` on. Once the operation is completed with 0, each byte of them must
/// have been written.
pub const VMCELL_DISK_READ: i32 = 1;
/// Write the parts to the disk from `at` on.
pub const VMCELL_DISK_WRITE: i32 = 2;
/// Make stable whatever was completed before this was submitted: it must survive a crash of the host.
pub const VMCELL_DISK_FLUSH: i32 = 3;
/// The guest no longer needs `len` bytes from `at` on, whose content may be lost. This is a hint: a backend that has no use
/// for it completes it with 0.
pub const VMCELL_DISK_DISCARD: i32 = 4;
/// Make `len` bytes from `at` on read as zeroes. This is a promise, unlike VMCELL_DISK_DISCARD.
pub const VMCELL_DISK_WRITE_ZEROES: i32 = 5;

/// A flag of VMCELL_DISK_WRITE and VMCELL_DISK_WRITE_ZEROES: it must be stable, as after a flush, when it is completed.
pub const VMCELL_DISK_STABLE: u32 = 1;
/// A flag of VMCELL_DISK_WRITE_ZEROES: preferably by giving the storage of the range back.
pub const VMCELL_DISK_UNMAP: u32 = 2;

/// An operation that a disk's backend is to carry out. It stays as it is, at the same address, until it is completed: a
/// backend may keep the pointer, and pass it to a thread of its own.
///
/// The range lies inside the capacity, or inside one that was there a moment before, in whole blocks; data is from one block to
/// the largest transfer of the backend.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct DiskOperation {
    /// The size of this structure, in bytes, in this version of the library.
    pub struct_size: usize,
    /// Names the operation to vmcell_disk_port_complete. No other operation of the process is likely to have the same tag,
    /// and none that is in flight on the same disk has it.
    pub tag: u64,
    /// What to do, one of VMCELL_DISK_READ to VMCELL_DISK_WRITE_ZEROES. A later version may have more: complete one that you
    /// do not know with EOPNOTSUPP.
    pub kind: i32,
    /// A sum of VMCELL_DISK_STABLE and VMCELL_DISK_UNMAP, or 0.
    pub flags: u32,
    /// The first byte on the disk; 0 for a flush.
    pub at: u64,
    /// The number of bytes; 0 for a flush.
    pub len: u64,
    /// Where the data of a read or a write lies, as readv, writev and their relatives take it: `part_count` parts, in order,
    /// `len` bytes in all. NULL for other kinds.
    ///
    /// The parts lie in the guest's memory, mostly, and the guest may change their bytes at any time: copy what you check
    /// before you check it, and let nothing lie there that the guest must not see. They are valid until the operation is
    /// completed, and then must not be touched again.
    pub parts: *const iovec,
    /// The number of parts: at most the `max_segments` of the backend.
    pub part_count: usize,
}

/// An operation as C sees it, at an address that stays the same.
#[derive(Clone)]
pub(super) struct Described {
    pub(super) seen: DiskOperation,
    /// Copies, so that what C does to them is nothing to us.
    parts: Vec<iovec>,
}

// SAFETY: the pointers lead into `parts`, and into the buffer of an operation that is kept for as long as this is in use.
// Here nobody follows them: they are only passed on.
unsafe impl Send for Described {}
// SAFETY: as above; it does not change while it is shared.
unsafe impl Sync for Described {}

/// An operation that C has.
pub(super) struct InFlight {
    /// What it is called by its submitter.
    pub(super) tag: Tag,
    /// Holds the buffer until the operation is completed.
    pub(super) operation: Operation,
    pub(super) described: Arc<Described>,
}

/// An operation that C has completed.
pub(super) struct Finished {
    pub(super) done: Done,
    pub(super) described: Arc<Described>,
}

impl Described {
    pub(super) fn new() -> Self {
        let seen = DiskOperation {
            struct_size: size_of::<DiskOperation>(),
            tag: 0,
            kind: 0,
            flags: 0,
            at: 0,
            len: 0,
            parts: std::ptr::null(),
            part_count: 0,
        };
        Self { seen, parts: Vec::new() }
    }

    /// Describes an operation, whose buffer must be kept for as long as C has the description.
    pub(super) fn describe(&mut self, tag: u64, operation: &mut Operation) {
        self.parts.clear();
        let (kind, flags, at, len) = match operation {
            Operation::Read { at, into } => {
                add_parts(&mut self.parts, into);
                (VMCELL_DISK_READ, 0, *at, into.len())
            }
            Operation::Write { at, from, stable } => {
                add_parts(&mut self.parts, from);
                (VMCELL_DISK_WRITE, flag(VMCELL_DISK_STABLE, *stable), *at, from.len())
            }
            Operation::Flush => (VMCELL_DISK_FLUSH, 0, 0, 0),
            Operation::Discard(range) => (VMCELL_DISK_DISCARD, 0, range.at, range.len),
            Operation::WriteZeroes { range, unmap, stable } => {
                let flags = flag(VMCELL_DISK_STABLE, *stable) | flag(VMCELL_DISK_UNMAP, *unmap);
                (VMCELL_DISK_WRITE_ZEROES, flags, range.at, range.len)
            }
        };
        let parts = if self.parts.is_empty() { std::ptr::null() } else { self.parts.as_ptr() };
        let (struct_size, part_count) = (self.seen.struct_size, self.parts.len());
        self.seen = DiskOperation { struct_size, tag, kind, flags, at, len, parts, part_count };
    }
}

fn flag(flag: u32, is_set: bool) -> u32 {
    if is_set { flag } else { 0 }
}

/// Adds the guest's ranges as they are; memory of the host is one part.
fn add_parts(parts: &mut Vec<iovec>, buffer: &mut Buffer) {
    match buffer {
        Buffer::Guest(ranges) => parts.extend_from_slice(ranges.as_iovecs()),
        Buffer::Host(buffer) => parts.push(iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }),
    }
}
