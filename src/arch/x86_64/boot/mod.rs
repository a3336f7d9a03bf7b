//! Kernel, initrd, command line, and the boot protocol's own structures: everything that must be in the guest's memory
//! before its first instruction.
//!
//! Images come from the caller but are not trusted: every number in them is checked against the file and the guest's
//! memory before it is used, nothing is allocated by such a number alone, and the time is linear in their size.

mod bzimage;
mod cmdline;
mod elf;
mod image;
mod initrd;
mod loaded;
mod note;
mod room;
mod start_info;
mod zero_page;

use super::entry::{Entry, Handover};
use super::layout::RSDP;
use super::platform::Platform;
use super::{acpi, mp_table, regs, reset_vector};
use crate::config::{Boot, BootProtocol, Discovery};
use crate::error::Result;
use crate::memory::GuestMemory;
use image::{Format, Image};
use room::Room;

/// The files that a guest starts with.
pub(crate) struct Images {
    kernel: Image,
    initrd: Option<Image>,
}

impl Images {
    /// Opens them, and reads nothing yet.
    ///
    /// # Errors
    /// `ErrorKind::BootImage` naming the file that was refused and why.
    pub(crate) fn open(boot: &Boot) -> Result<Self> {
        let kernel = Image::open("kernel", &boot.kernel)?;
        let initrd = boot.initrd.as_ref().map(|path| Image::open("initrd", path)).transpose()?;
        Ok(Self { kernel, initrd })
    }
}

/// Puts everything that the guest starts with into its memory.
///
/// # Errors
/// `ErrorKind::BootImage` naming the file that was refused and why; `ErrorKind::InvalidConfig` if guest memory has no
/// region from 0 up to 1 MiB at least.
pub(crate) fn load(memory: &GuestMemory, images: Images, boot: &Boot, platform: &Platform) -> Result<Entry> {
    let Images { kernel: mut image, mut initrd } = images;
    let room = Room::new(memory, initrd.as_ref().map_or(0, Image::len))?;
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
    mp_table::write(memory, platform)?;
    regs::write_tables(memory, kernel.entry.handover)?;
    reset_vector::write(memory)?;
    Ok(kernel.entry)
}

/// As [`load`], from the files that `boot` names.
#[cfg(test)]
fn load_files(memory: &GuestMemory, boot: &Boot, platform: &Platform) -> Result<Entry> {
    load(memory, Images::open(boot)?, boot, platform)
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
