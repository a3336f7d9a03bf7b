//! bzImage: a compressed kernel with a header, entered by the 64-bit boot protocol (Documentation/arch/x86/boot.rst).

use std::mem::offset_of;

use linux_loader::loader::bootparam::{XLF_KERNEL_64, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::ByteValued;

use super::image::Image;
use super::loaded::Kernel;
use super::room::Room;
use crate::arch::x86_64::entry::{Entry, Handover};
use crate::arch::x86_64::layout::{HIGH_RAM_START, MMIO_GAP_START};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

const HEADER_OFFSET: u64 = offset_of!(boot_params, hdr) as u64;
/// The setup header's length, in the byte before, counts from here: from the magic.
const HEADER_END_BASE: u64 = 0x202;
const JUMP_OFFSET: u64 = 0x201;
/// The first version with `xloadflags`.
const MIN_VERSION: u16 = 0x20c;
const LOADED_HIGH: u8 = 1;
const SECTOR: u64 = 512;
/// The number of setup sectors if `setup_sects` is 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// The unit of `syssize`.
const PARAGRAPH: u64 = 16;
/// The 64-bit entry point, from the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;

/// Checks the image against its header and loads it.
pub(super) fn load(memory: &GuestMemory, image: &mut Image, room: &Room) -> Result<Kernel> {
    let header = read_header(image)?;
    check_protocol(image, &header)?;
    let payload = payload_len(image, &header)?;
    let (start, end) = place(image, &header, payload, room)?;
    let loaded = BzImage::load(memory.mmap(), Some(vm_memory::GuestAddress(start)), image.file(), None);
    loaded.map_err(|cause| image.refuse("cannot be loaded").with_source(cause))?;
    let entry = Entry { address: GuestAddress(start.saturating_add(ENTRY_64)), handover: Handover::Linux64 };
    Ok(Kernel { entry, end, header })
}

/// The header as far as the kernel says that it has one; fields past its end are zero.
fn read_header(image: &Image) -> Result<setup_header> {
    let mut header = setup_header::default();
    let mut jump = [0];
    image.read(JUMP_OFFSET, &mut jump)?;
    let end = HEADER_END_BASE + u64::from(jump[0]);
    if image.len() < end {
        let len = image.len();
        return Err(image.refuse(format!("is truncated: its setup header ends at {end:#x}, the file at {len:#x}")));
    }
    let len = usize::try_from(end.saturating_sub(HEADER_OFFSET)).unwrap_or(usize::MAX);
    let known = header.as_mut_slice();
    let len = len.min(known.len());
    image.read(HEADER_OFFSET, known.get_mut(..len).unwrap_or_default())?;
    Ok(header)
}

fn check_protocol(image: &Image, header: &setup_header) -> Result<()> {
    let (version, xloadflags) = (header.version, header.xloadflags);
    if version < MIN_VERSION {
        return Err(image.refuse(format!(
            "speaks version {}.{:02} of the boot protocol, needed is 2.12 (Linux 3.8)",
            version >> 8,
            version & 0xff
        )));
    }
    if xloadflags & XLF_KERNEL_64 == 0 {
        let why = format!("has no 64-bit entry point (xloadflags={xloadflags:#x}): is it a 32-bit kernel?");
        return Err(image.refuse(why));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(image.refuse("is a zImage, which loads below 1 MiB; allowed is a bzImage"));
    }
    Ok(())
}

/// The length of the protected-mode kernel: all that follows the setup sectors.
fn payload_len(image: &Image, header: &setup_header) -> Result<u64> {
    let sectors = if header.setup_sects == 0 { DEFAULT_SETUP_SECTORS } else { header.setup_sects };
    let setup = u64::from(sectors).saturating_add(1).saturating_mul(SECTOR);
    let promised = u64::from(header.syssize) * PARAGRAPH;
    match image.len().checked_sub(setup) {
        Some(present) if present >= promised.max(ENTRY_64) => Ok(present),
        _ => Err(image.refuse(format!(
            "is truncated: its header promises {setup} bytes of setup and {promised} of kernel, the file has {} bytes",
            image.len()
        ))),
    }
}

/// The kernel's place, and the end of the memory that it needs to unpack itself in place.
///
/// The preferred address is also the lowest at which the kernel runs: loaded lower, it only moves itself up. So in a
/// small guest there is no other place to try.
fn place(image: &Image, header: &setup_header, payload: u64, room: &Room) -> Result<(u64, u64)> {
    let (preferred, init_size) = (header.pref_address, u64::from(header.init_size));
    let needed = payload.max(init_size);
    let end = aligned(preferred, header).and_then(|start| Some((start, start.checked_add(needed)?)));
    match end {
        Some((start, end)) if start >= HIGH_RAM_START && end <= room.ram_end => Ok((start, end)),
        Some((start, end)) if start >= HIGH_RAM_START && end <= MMIO_GAP_START => {
            let why = format!("unpacks itself to gpa={start:#x} to {end:#x}, so it {}", room.needed(end));
            Err(image.refuse(why))
        }
        _ => Err(image.refuse(format!(
            "needs {needed} bytes at the preferred address {preferred:#x}, allowed are {HIGH_RAM_START:#x} to \
             {MMIO_GAP_START:#x}"
        ))),
    }
}

/// The address at which a relocatable kernel runs when it is loaded there.
fn aligned(address: u64, header: &setup_header) -> Option<u64> {
    let alignment = u64::from(header.kernel_alignment);
    if header.relocatable_kernel == 0 || !alignment.is_power_of_two() {
        return Some(address);
    }
    address.checked_next_multiple_of(alignment)
}
