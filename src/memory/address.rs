//! Guest physical addresses.

use std::fmt;

/// A guest physical address (GPA), at which the guest sees a byte of its RAM or a device's register.
///
/// ```
/// use vmcell::GuestAddress;
///
/// let gpa = GuestAddress(0x1000);
/// assert_eq!(gpa.checked_add(0x234), Some(GuestAddress(0x1234)));
/// assert_eq!(GuestAddress(u64::MAX).checked_add(1), None);
/// assert_eq!(gpa.to_string(), "0x1000");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct GuestAddress(pub u64);

impl GuestAddress {
    /// Returns the address `offset` bytes further, or `None` if it would lie past the end of the 64-bit address space.
    pub fn checked_add(self, offset: u64) -> Option<Self> {
        self.0.checked_add(offset).map(Self)
    }

    /// The same address in the type of `vm-memory`, which is not a part of our interface.
    pub(crate) fn inner(self) -> vm_memory::GuestAddress {
        vm_memory::GuestAddress(self.0)
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
