//! ELF images: an uncompressed Linux kernel, or a small guest that is entered like one.
//!
//! Not by `linux-loader`: it does not look at the machine, at where segments end in memory, at overlaps or at the entry point, it
//! would walk every note segment note by note, and it reads the holes of a file too.

use vm_memory::Bytes;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::image::Image;
use super::loaded::Kernel;
use super::room::Room;
use super::{note, zero_page};
use crate::arch::x86_64::entry::{Entry, Handover};
use crate::arch::x86_64::layout::{HIGH_RAM_START, MMIO_GAP_START};
use crate::config::BootProtocol;
use crate::error::Result;
use crate::memory::{GuestAddress, GuestMemory};

/// ELF gABI, "ELF Header" and "Program Header".
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The size of all note segments of an image together; a kernel's have some hundred bytes.
const MAX_NOTES: usize = 1 << 20;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 4],
    class: u8,
    data: u8,
    ident: [u8; 10],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    header_size: u16,
    program_header_size: u16,
    program_header_count: u16,
    section_header_size: u16,
    section_header_count: u16,
    section_names: u16,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

/// A segment's place in the guest's memory.
struct Segment {
    start: u64,
    end: u64,
}

/// Checks the image, loads it, and chooses how it is entered.
pub(super) fn load(memory: &GuestMemory, image: &mut Image, room: &Room, wanted: BootProtocol) -> Result<Kernel> {
    let header = read_header(image)?;
    let programs = read_program_headers(image, &header)?;
    let segments = check_segments(image, &programs)?;
    let end = segments.iter().map(|segment| segment.end).max().unwrap_or(HIGH_RAM_START);
    if end > room.ram_end {
        return Err(image.refuse(format!("has a segment up to gpa={end:#x}, so it {}", room.needed(end))));
    }
    let pvh = match wanted {
        BootProtocol::Linux64 => None,
        BootProtocol::Auto | BootProtocol::Pvh => find_pvh_entry(image, &programs)?,
    };
    let (address, handover) = match pvh {
        Some(entry) => (u64::from(entry), Handover::Pvh),
        None if wanted == BootProtocol::Pvh => {
            return Err(image.refuse("has no PVH note, so it cannot be booted by PVH"));
        }
        None => (header.entry, Handover::Linux64),
    };
    if !segments.iter().any(|segment| (segment.start..segment.end).contains(&address)) {
        return Err(image.refuse(format!("has its entry point at {address:#x}, outside of the segments that it loads")));
    }
    loaded(&programs).try_for_each(|program| copy(memory, image, program))?;
    let entry = Entry { address: GuestAddress(address), handover };
    Ok(Kernel { entry, end, header: zero_page::default_header() })
}

/// Copies what a segment has in the file, but for the file's holes: the memory is new, so it is zeros already. In Debian's kernel,
/// of 45 MiB, 15 are zeros, most of them memory that the guest may never use; a file with holes there saves reading and keeping them.
fn copy(memory: &GuestMemory, image: &mut Image, program: &ProgramHeader) -> Result<()> {
    let end = program.offset.saturating_add(program.file_size);
    let mut next = program.offset;
    while let Some((start, stop)) = image.next_data(next, end)? {
        // Inside of the segment, which lies inside of the memory, so it fits.
        let gpa = program.physical_address.saturating_add(start.saturating_sub(program.offset));
        let len = usize::try_from(stop.saturating_sub(start)).unwrap_or(usize::MAX);
        let read = memory.mmap().read_exact_volatile_from(vm_memory::GuestAddress(gpa), image.file(), len);
        read.map_err(|cause| image.refuse("cannot be loaded").with_source(cause))?;
        next = stop;
    }
    Ok(())
}

fn read_header(image: &Image) -> Result<FileHeader> {
    let size = size_of::<FileHeader>() as u64;
    if image.len() < size {
        let len = image.len();
        return Err(image.refuse(format!("is truncated: an ELF image has {size} bytes at least, this one {len}")));
    }
    let mut header = FileHeader::new_zeroed();
    image.read(0, header.as_mut_bytes())?;
    if header.class != CLASS_64 {
        return Err(image.refuse(format!("is an ELF image of class {}, needed is {CLASS_64} (64 bits)", header.class)));
    }
    if header.data != LITTLE_ENDIAN {
        let why =
            format!("is an ELF image of data encoding {}, needed is {LITTLE_ENDIAN} (little-endian)", header.data);
        return Err(image.refuse(why));
    }
    if header.machine != MACHINE_X86_64 {
        let why = format!("is an ELF image for machine {}, needed is {MACHINE_X86_64} (x86_64)", header.machine);
        return Err(image.refuse(why));
    }
    Ok(header)
}

fn read_program_headers(image: &Image, header: &FileHeader) -> Result<Vec<ProgramHeader>> {
    let size = size_of::<ProgramHeader>();
    if usize::from(header.program_header_size) != size && header.program_header_count != 0 {
        let found = header.program_header_size;
        return Err(image.refuse(format!("has program headers of {found} bytes, needed are {size}")));
    }
    // At most 65535 of them, so 3.6 MB, and those are in the file.
    let len = u64::from(header.program_header_count).saturating_mul(size as u64);
    let start = header.program_headers;
    if start.checked_add(len).is_none_or(|end| end > image.len()) || start < size_of::<FileHeader>() as u64 {
        return Err(image.refuse(format!(
            "has program headers at offset={start:#x} len={len:#x}, which are not inside the file of {:#x} bytes",
            image.len()
        )));
    }
    let mut programs = vec![ProgramHeader::new_zeroed(); usize::from(header.program_header_count)];
    image.read(start, programs.as_mut_slice().as_mut_bytes())?;
    Ok(programs)
}

/// Those that are loaded.
fn loaded(programs: &[ProgramHeader]) -> impl Iterator<Item = &ProgramHeader> {
    programs.iter().filter(|program| program.kind == PT_LOAD && program.memory_size != 0)
}

/// The loaded segments in ascending order.
fn check_segments(image: &Image, programs: &[ProgramHeader]) -> Result<Vec<Segment>> {
    let mut segments =
        loaded(programs).map(|program| check_segment(image, program)).collect::<Result<Vec<Segment>>>()?;
    if segments.is_empty() {
        return Err(image.refuse("has no segment to load"));
    }
    segments.sort_by_key(|segment| segment.start);
    for pair in segments.windows(2) {
        if let [low, high] = pair
            && low.end > high.start
        {
            return Err(image.refuse(format!(
                "has segments that overlap: gpa={:#x} to {:#x} and gpa={:#x} to {:#x}",
                low.start, low.end, high.start, high.end
            )));
        }
    }
    Ok(segments)
}

fn check_segment(image: &Image, program: &ProgramHeader) -> Result<Segment> {
    let &ProgramHeader { offset, file_size, memory_size, physical_address: start, .. } = program;
    if file_size > memory_size {
        return Err(image.refuse(format!(
            "has a segment gpa={start:#x} with more bytes in the file ({file_size:#x}) than in memory ({memory_size:#x})"
        )));
    }
    if offset.checked_add(file_size).is_none_or(|end| end > image.len()) {
        return Err(image.refuse(format!(
            "is truncated: its segment offset={offset:#x} len={file_size:#x} runs past the end of the file at {:#x}",
            image.len()
        )));
    }
    match start.checked_add(memory_size) {
        Some(end) if start >= HIGH_RAM_START && end <= MMIO_GAP_START => Ok(Segment { start, end }),
        _ => Err(image.refuse(format!(
            "has a segment gpa={start:#x} len={memory_size:#x}, allowed are addresses from {HIGH_RAM_START:#x} to \
             {MMIO_GAP_START:#x}"
        ))),
    }
}

/// Looks through the note segments; the first entry point counts.
fn find_pvh_entry(image: &Image, programs: &[ProgramHeader]) -> Result<Option<u32>> {
    let mut budget = MAX_NOTES;
    for program in programs.iter().filter(|program| program.kind == PT_NOTE) {
        let &ProgramHeader { offset, file_size, alignment, .. } = program;
        if offset.checked_add(file_size).is_none_or(|end| end > image.len()) {
            return Err(image.refuse(format!(
                "has a note segment offset={offset:#x} len={file_size:#x} that runs past the end of the file at {:#x}",
                image.len()
            )));
        }
        let len = usize::try_from(file_size).unwrap_or(usize::MAX);
        budget = budget.checked_sub(len).ok_or_else(|| {
            image.refuse(format!("has note segments of more than {MAX_NOTES} bytes, which is the most allowed"))
        })?;
        let mut notes = vec![0; len];
        image.read(offset, &mut notes)?;
        let alignment = if alignment == 8 { 8 } else { 4 };
        if let Some(entry) = note::pvh_entry(&notes, alignment).map_err(|why| image.refuse(why))? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
