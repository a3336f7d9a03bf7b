//! The zero page: how the 64-bit boot protocol describes the machine to Linux (Documentation/arch/x86/zero-page.rst).

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::ByteValued;

use super::loaded::Placed;
use crate::arch::x86_64::layout::{ZERO_PAGE, memory_map};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};

/// "No ID assigned" (Documentation/arch/x86/boot.rst, `type_of_loader`).
const LOADER_WITHOUT_ID: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const VERSION: u16 = 0x20f;
const LOADED_HIGH: u8 = 1;
/// COMMAND_LINE_SIZE of x86, less the NUL.
const LINUX_CMDLINE_SIZE: u32 = 2047;

/// The header for a kernel that has none: no limit for the initrd but the MMIO gap.
pub(super) fn default_header() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        version: VERSION,
        loadflags: LOADED_HIGH,
        kernel_alignment: 0x100_0000,
        initrd_addr_max: u32::MAX,
        cmdline_size: LINUX_CMDLINE_SIZE,
        ..setup_header::default()
    }
}

pub(super) fn write(
    memory: &GuestMemory,
    header: &setup_header,
    initrd: Option<Placed>,
    cmdline: Placed,
    rsdp: Option<GuestAddress>,
) -> Result<()> {
    let mut params = boot_params { hdr: *header, ..boot_params::default() };
    params.hdr.type_of_loader = LOADER_WITHOUT_ID;
    params.hdr.cmd_line_ptr = low(cmdline.start.0)?;
    // The kernel would follow a pointer from the image.
    params.hdr.setup_data = 0;
    params.hdr.ramdisk_image = low(initrd.map_or(0, |initrd| initrd.start.0))?;
    params.hdr.ramdisk_size = low(initrd.map_or(0, |initrd| initrd.len))?;
    params.acpi_rsdp_addr = rsdp.map_or(0, |rsdp| rsdp.0);
    for (slot, entry) in params.e820_table.iter_mut().zip(memory_map(memory)) {
        *slot = boot_e820_entry { addr: entry.start, size: entry.len, r#type: entry.kind as u32 };
        params.e820_entries = params.e820_entries.saturating_add(1);
    }
    memory.write(ZERO_PAGE, params.as_slice())
}

/// Everything is loaded below 4 GiB, so this does not fail.
fn low(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|cause| {
        Error::new(ErrorKind::BootImage, format!("gpa={value:#x} lies past 4 GiB, where a kernel isn't told of it"))
            .with_source(cause)
    })
}
