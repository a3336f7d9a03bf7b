//! The initial RAM disk: as high as the kernel allows, out of the way of a kernel that unpacks itself.

use vm_memory::Bytes;

use super::image::Image;
use super::loaded::{Kernel, Placed};
use super::room::{Room, page_end};
use crate::arch::x86_64::layout::MMIO_GAP_START;
use crate::error::{Error, Result};
use crate::memory::{GuestAddress, GuestMemory};

const PAGE_SIZE: u64 = 0x1000;

pub(super) fn load(memory: &GuestMemory, image: &mut Image, kernel: &Kernel, room: &Room) -> Result<Placed> {
    let len = room.initrd_len;
    let limit = room.ram_end.min(kernel_limit(kernel));
    let start = limit.checked_sub(len).map(|start| start & !(PAGE_SIZE - 1)).filter(|start| *start >= kernel.end);
    // The length is not larger than the guest's memory, so it fits.
    let (Some(start), Ok(size)) = (start, usize::try_from(len)) else {
        return Err(too_large(image, kernel, room));
    };
    let read = memory.mmap().read_exact_volatile_from(vm_memory::GuestAddress(start), image.file(), size);
    read.map_err(|cause| image.refuse("cannot be loaded").with_source(cause))?;
    Ok(Placed { start: GuestAddress(start), len })
}

/// The first address that the kernel cannot reach; its field names the one before.
fn kernel_limit(kernel: &Kernel) -> u64 {
    u64::from(kernel.header.initrd_addr_max) + 1
}

fn too_large(image: &Image, kernel: &Kernel, room: &Room) -> Error {
    let (len, end, highest) = (room.initrd_len, page_end(kernel.end), MMIO_GAP_START.min(kernel_limit(kernel)));
    let most = highest.saturating_sub(end);
    if len <= most {
        return image.refuse(format!(
            "has {len} bytes and the kernel ends at gpa={:#x}, so it {}",
            kernel.end,
            room.needed(kernel.end)
        ));
    }
    image.refuse(format!(
        "has {len} bytes, allowed are {most}: it must lie between the end of the kernel at gpa={end:#x} and gpa={highest:#x}"
    ))
}
