//! The initial RAM disk: as high as the kernel allows, out of the way of a kernel that unpacks itself.

use std::path::Path;

use vm_memory::Bytes;

use super::image::Image;
use super::{Kernel, Placed, mib};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

const PAGE_SIZE: u64 = 0x1000;

pub(super) fn load(memory: &GuestMemory, path: &Path, kernel: &Kernel, ram_end: u64) -> Result<Placed> {
    let mut image = Image::open("initrd", path)?;
    let len = image.len();
    // The field names the last byte that may be used.
    let limit = ram_end.min(u64::from(kernel.header.initrd_addr_max) + 1);
    let start = limit.checked_sub(len).map(|start| start & !(PAGE_SIZE - 1)).filter(|start| *start >= kernel.end);
    let Some(start) = start else {
        return Err(refuse(&image, kernel, limit, ram_end));
    };
    let read = usize::try_from(len).map_err(|cause| cause.to_string()).and_then(|len| {
        let start = vm_memory::GuestAddress(start);
        memory.mmap().read_exact_volatile_from(start, image.file(), len).map_err(|cause| cause.to_string())
    });
    read.map_err(|cause| image.refuse("cannot be read").with_source(cause))?;
    Ok(Placed { start: GuestAddress(start), len })
}

fn refuse(image: &Image, kernel: &Kernel, limit: u64, ram_end: u64) -> crate::error::Error {
    let len = image.len();
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE_SIZE);
    let limited_by_kernel = limit < ram_end;
    match pages(kernel.end).checked_add(len.div_ceil(PAGE_SIZE).saturating_mul(PAGE_SIZE)) {
        Some(needed) if !limited_by_kernel && needed <= super::MMIO_GAP_START => image.refuse(format!(
            "has {len} bytes, and the kernel ends at gpa={:#x}: together they need {} MiB of memory, the guest has {} MiB",
            kernel.end,
            mib(needed),
            mib(ram_end)
        )),
        _ => image.refuse(format!(
            "has {len} bytes, allowed are {} between the end of the kernel at gpa={:#x} and gpa={:#x}",
            limit.saturating_sub(pages(kernel.end)),
            kernel.end,
            super::MMIO_GAP_START.min(u64::from(kernel.header.initrd_addr_max) + 1)
        )),
    }
}
