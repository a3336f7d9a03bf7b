//! How the first vCPU enters a kernel: chosen by the image, carried out by the registers.

use crate::memory::GuestAddress;

/// Where and how the first vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: GuestAddress,
    pub(crate) handover: Handover,
}

/// What the kernel expects to find when it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// Long mode and the zero page.
    Linux64,
    /// Protected mode and the start info.
    Pvh,
}
