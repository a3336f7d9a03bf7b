//! Guest buffers without a device.

use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory, GuestRanges, Lessor, RangeList};

/// Makes ranges of guest memory, in order, like those that a device gives to its backend.
///
/// ```
/// use vmcell::testing::{guest_ranges, patterned_memory};
/// use vmcell::GuestAddress;
///
/// let memory = patterned_memory(1 << 20);
/// let ranges = guest_ranges(&memory, &[(GuestAddress(0x1000), 100), (GuestAddress(0x3000), 412)])?;
/// ranges.copy_in(0, &[7; 512])?;
/// assert_eq!((ranges.len(), ranges.count()), (512, 2));
/// # Ok::<(), vmcell::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::GuestAddress`](crate::ErrorKind::GuestAddress) if a range is not RAM.
pub fn guest_ranges(memory: &GuestMemory, ranges: &[(GuestAddress, u32)]) -> Result<GuestRanges> {
    let mut buffer = GuestRanges::new(RangeList::default(), Lessor::new(memory.clone()).lease());
    buffer.extend(ranges.iter().copied())?;
    Ok(buffer)
}
