//! What lies in the guest's memory already, for what is loaded or written after it.

use linux_loader::loader::bootparam::setup_header;

use crate::arch::x86_64::entry::Entry;
use crate::memory::GuestAddress;

/// A kernel in the guest's memory.
pub(super) struct Kernel {
    pub(super) entry: Entry,
    /// The first byte that it leaves free.
    pub(super) end: u64,
    /// What a bzImage says about itself; made up for an ELF image.
    pub(super) header: setup_header,
}

/// A range of the guest's memory, with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) start: GuestAddress,
    pub(super) len: u64,
}
