//! The start info: how PVH describes the machine to a kernel (Xen's `xen/include/public/arch-x86/hvm/start_info.h`).

use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::ByteValued;

use super::loaded::Placed;
use crate::arch::x86_64::layout::{START_INFO, memory_map};
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;

/// Where the list of modules and the memory map lie, behind the start info.
const MODULES: u64 = START_INFO.0 + size_of::<hvm_start_info>() as u64;
const MAP: u64 = MODULES + size_of::<hvm_modlist_entry>() as u64;

/// The start info, its list of modules (the initrd is the only one), and the memory map, one after the other.
pub(super) fn write(
    memory: &GuestMemory,
    initrd: Option<Placed>,
    cmdline: Placed,
    rsdp: Option<GuestAddress>,
) -> Result<()> {
    let entries = memory_map(memory);
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { MODULES } else { 0 },
        cmdline_paddr: cmdline.start.0,
        rsdp_paddr: rsdp.map_or(0, |rsdp| rsdp.0),
        memmap_paddr: MAP,
        // No more than six.
        memmap_entries: u32::try_from(entries.len()).unwrap_or(0),
        ..hvm_start_info::default()
    };
    let module = initrd.map_or_else(hvm_modlist_entry::default, |initrd| hvm_modlist_entry {
        paddr: initrd.start.0,
        size: initrd.len,
        ..hvm_modlist_entry::default()
    });
    let mut bytes = info.as_slice().to_vec();
    bytes.extend_from_slice(module.as_slice());
    for entry in entries {
        let entry =
            hvm_memmap_table_entry { addr: entry.start, size: entry.len, type_: entry.kind as u32, reserved: 0 };
        bytes.extend_from_slice(entry.as_slice());
    }
    memory.write(START_INFO, &bytes)
}
