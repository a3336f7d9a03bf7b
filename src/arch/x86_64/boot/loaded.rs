//! Kernel and other parts that lie in the guest's memory already, for the parts that come after them.

use linux_loader::loader::bootparam::setup_header;

use crate::arch::x86_64::entry::Entry;
use crate::memory::GuestAddress;

/// A kernel in the guest's memory.
pub(super) struct Kernel {
    pub(super) entry: Entry,
    /// The first byte after it.
    pub(super) end: u64,
    /// The header of a bzImage; made up for an ELF image.
    pub(super) header: setup_header,
}

/// A range of the guest's memory, with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) start: GuestAddress,
    pub(super) len: u64,
}
