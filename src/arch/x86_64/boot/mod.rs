//! Kernel, initrd, command line, and what a boot protocol hands over with them: everything that must be in the guest's
//! memory before its first instruction.
//!
//! Images come from the caller but are not trusted: every number in them is checked against the file and the guest's
//! memory before it is used, nothing is allocated by such a number alone, and the time is linear in their size.

mod bzimage;
mod cmdline;
mod elf;
mod image;
mod initrd;
mod note;
mod start_info;
mod zero_page;

use super::layout::{HIGH_RAM_START, MMIO_GAP_START, MmioSlot, RSDP};
use super::{acpi, regs, reset_vector};
use crate::config::{Boot, BootProtocol, Discovery};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{GuestAddress, GuestMemory};
use image::{Format, Image};
use linux_loader::loader::bootparam::setup_header;

/// The machine that the kernel is told of.
pub(crate) struct Platform<'a> {
    /// How many vCPUs it has, with the LAPIC identifiers 0 and up.
    pub(crate) vcpus: u32,
    /// Where its virtio-mmio devices are.
    pub(crate) devices: &'a [MmioSlot],
}

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

/// A kernel in the guest's memory.
struct Kernel {
    entry: Entry,
    /// The first byte that it leaves free.
    end: u64,
    /// What a bzImage says about itself; made up for an ELF image.
    header: setup_header,
}

/// A range of the guest's memory, with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    start: GuestAddress,
    len: u64,
}

/// Puts everything that the guest starts with into its memory.
///
/// # Errors
/// [`ErrorKind::BootImage`] naming the file that was refused and why; [`ErrorKind::InvalidConfig`] for guest memory
/// without a region from 0 up to 1 MiB at least.
pub(crate) fn load(memory: &GuestMemory, boot: &Boot, platform: &Platform) -> Result<Entry> {
    let mut image = Image::open("kernel", &boot.kernel)?;
    let mut initrd = boot.initrd.as_ref().map(|path| Image::open("initrd", path)).transpose()?;
    let room = Room { ram_end: low_ram_end(memory)?, initrd_len: initrd.as_ref().map_or(0, Image::len) };
    let kernel = match image.format()? {
        Format::Elf => elf::load(memory, &mut image, &room, boot.protocol)?,
        Format::BzImage if boot.protocol == BootProtocol::Pvh => {
            return Err(image.refuse("is a bzImage, which PVH cannot boot; that takes an ELF image with a PVH note"));
        }
        Format::BzImage => bzimage::load(memory, &mut image, &room)?,
    };
    let initrd = initrd.as_mut().map(|image| initrd::load(memory, image, &kernel, &room)).transpose()?;
    let cmdline = cmdline::write(memory, boot, platform.devices, kernel.header.cmdline_size)?;
    let rsdp = match boot.discovery {
        Discovery::Acpi => acpi::write(memory, platform).map(|()| Some(RSDP))?,
        Discovery::Cmdline => None,
    };
    match kernel.entry.handover {
        Handover::Linux64 => zero_page::write(memory, &kernel.header, initrd, cmdline, rsdp)?,
        Handover::Pvh => start_info::write(memory, initrd, cmdline, rsdp)?,
    }
    regs::write_tables(memory, kernel.entry.handover)?;
    reset_vector::write(memory)?;
    Ok(kernel.entry)
}

/// The RAM below the MMIO gap, where everything is loaded, and what must find place in it besides the kernel.
struct Room {
    ram_end: u64,
    initrd_len: u64,
}

impl Room {
    /// What memory a kernel needs that ends at `kernel_end`, in words that follow the image's name and a reason.
    fn needed(&self, kernel_end: u64) -> String {
        let initrd = match self.initrd_len {
            0 => "",
            _ => " with the initrd",
        };
        let bytes = page_end(kernel_end).saturating_add(page_end(self.initrd_len));
        format!("needs {} MiB of memory{initrd}; the guest has {} MiB", mib(bytes), mib(self.ram_end))
    }
}

fn low_ram_end(memory: &GuestMemory) -> Result<u64> {
    let first = memory.regions().next().filter(|region| region.start == GuestAddress(0));
    let end = first.map_or(0, |region| region.len.min(MMIO_GAP_START));
    if end < HIGH_RAM_START {
        let message = format!("the guest has {end} bytes of memory from gpa=0x0 on, a kernel needs 1 MiB at least");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(end)
}

/// The end of the page that `address` is in, or `address` where one starts.
fn page_end(address: u64) -> u64 {
    address.checked_next_multiple_of(0x1000).unwrap_or(u64::MAX)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
#[path = "enter_test.rs"]
mod enter_tests;
#[cfg(test)]
#[path = "images_test.rs"]
mod images;
#[cfg(test)]
#[path = "load_test.rs"]
mod load_tests;
#[cfg(test)]
#[path = "mutate_test.rs"]
mod mutate_tests;
#[cfg(test)]
#[path = "refuse_test.rs"]
mod refuse_tests;
