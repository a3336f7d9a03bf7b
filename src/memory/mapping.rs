//! Where the host takes the guest's RAM from: one mapping a region.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion};

use super::aligned::Mapping;
use super::template::Extent;
use crate::config::{MemoryBacking, PageSize};
use crate::error::{Error, ErrorKind, Result};

type Cause = Box<dyn std::error::Error + Send + Sync>;
type MapResult = std::result::Result<Mapped, Cause>;

/// A region, and the mapping that it is only a view of, which must be kept longer.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) region: MmapRegion,
    pub(super) mapping: Mapping,
}

/// What is mapped: `size` bytes that the guest sees at `gpa`, of the `total` bytes that it gets.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) gpa: u64,
    pub(super) size: usize,
    pub(super) total: u64,
}

/// What is under a mapping.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    New(MemoryBacking),
    /// The content of these places, one behind the other, of which the mapping has its own copy, page by page as it is changed.
    CopyOf(&'a [Extent]),
}

/// Maps memory the way `source` and `pages` say.
pub(super) fn map(wanted: Wanted, source: Source<'_>, pages: PageSize) -> Result<Mapped> {
    let mapped = match source {
        Source::New(MemoryBacking::Anonymous) => map_anonymous(wanted, pages),
        Source::New(MemoryBacking::Memfd) => map_memfd(wanted, pages),
        Source::CopyOf(extents) => map_copy(wanted, extents),
    };
    let mapped = mapped.map_err(|cause| refused(wanted.total, pages, cause))?;
    keep_apart(&mapped.mapping, pages);
    Ok(mapped)
}

/// A child process has no business with the guest's memory, nor has a core dump: it holds the guest's secrets, and copying its page tables
/// would make each fork of the host program slow.
pub(super) fn keep_apart(mapping: &Mapping, pages: PageSize) {
    mapping.advise(libc::MADV_DONTFORK);
    mapping.advise(libc::MADV_DONTDUMP);
    if pages == PageSize::Transparent {
        mapping.advise(libc::MADV_HUGEPAGE);
    }
}

// MAP_NORESERVE is left out on purpose: with it the host would promise any amount and kill a process later; without it,
// its overcommit policy refuses now what it can never provide.
fn map_anonymous(wanted: Wanted, pages: PageSize) -> MapResult {
    let huge = if pages == PageSize::Huge2Mib { libc::MAP_HUGETLB | libc::MAP_HUGE_2MB } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | huge;
    let mapping = Mapping::new(wanted.size, wanted.gpa, flags, -1)?;
    view(mapping, MmapRegionBuilder::new(wanted.size).with_mmap_flags(flags))
}

fn map_memfd(wanted: Wanted, pages: PageSize) -> MapResult {
    let file = sealed_memfd(wanted.size, pages)?;
    let flags = libc::MAP_SHARED;
    let mapping = Mapping::new(wanted.size, wanted.gpa, flags, file.as_raw_fd())?;
    // The descriptor is kept although the mapping does without: another mapping of the same RAM, for a copy of the VM for instance, can
    // be made from nothing else. By it, storage is also taken up front on kernels that cannot populate a mapping (before 5.14).
    let builder = MmapRegionBuilder::new(wanted.size).with_file_offset(FileOffset::new(file, 0));
    view(mapping, builder.with_mmap_flags(flags))
}

fn map_copy(wanted: Wanted, extents: &[Extent]) -> MapResult {
    let mapping = map_places(wanted.size, wanted.gpa, extents)?;
    view(mapping, MmapRegionBuilder::new(wanted.size).with_mmap_flags(libc::MAP_PRIVATE))
}

/// A private mapping of places, one behind the other, `size` bytes in all.
pub(super) fn map_places(size: usize, gpa: u64, extents: &[Extent]) -> io::Result<Mapping> {
    if let [Extent { place: Some((file, offset)), .. }] = extents {
        return Mapping::from_offset(size, gpa, libc::MAP_PRIVATE, file.as_raw_fd(), *offset);
    }
    let mapping = Mapping::new(size, gpa, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    let mut at = 0usize;
    for extent in extents {
        let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
        if let Some((file, offset)) = &extent.place {
            mapping.cover(at, len, file.as_raw_fd(), *offset)?;
        }
        at = at.saturating_add(len);
    }
    Ok(mapping)
}

/// A region of that mapping, for `vm-memory`, which does not align those that it maps itself.
fn view(mapping: Mapping, builder: MmapRegionBuilder) -> MapResult {
    let builder = builder.with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the mapping has the builder's size, access and kind, and is kept as long as the region: see `Mapped`.
    let region = unsafe { builder.with_raw_mmap_pointer(mapping.as_ptr()) }.build();
    region.map(|region| Mapped { region, mapping }).map_err(|cause| cause.to_string().into())
}

/// A memfd of `size` bytes, all zeroes.
pub(super) fn memfd(size: usize) -> io::Result<File> {
    sealed_memfd(size, PageSize::Default)
}

/// From now on, nobody can change it but by a mapping that is there already.
pub(super) fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is open, and F_ADD_SEALS takes a plain integer.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A memfd of `size` bytes that nobody can shrink, so that no access to the mapping can fault.
fn sealed_memfd(size: usize, pages: PageSize) -> io::Result<File> {
    let huge = if pages == PageSize::Huge2Mib { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | huge;
    // SAFETY: the name is a C string, and the call touches nothing else.
    let fd = unsafe { libc::memfd_create(c"vmcell-memory".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size as u64)?;
    // SAFETY: the descriptor is open, and F_ADD_SEALS takes a plain integer.
    if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn refused(total: u64, pages: PageSize, cause: Cause) -> Error {
    match pages {
        PageSize::Huge2Mib => {
            let (mib, count) = (total >> 20, total.div_ceil(2 << 20));
            let message = format!(
                "the host has no {mib} MiB of free 2 MiB pages for the guest ({count} needed; /proc/sys/vm/nr_hugepages \
                 sets how many there are)"
            );
            // As text: the usual hint for this cause is about other limits.
            Error::new(ErrorKind::HostMemory, message).with_source(cause.to_string())
        }
        PageSize::Default | PageSize::Transparent => cannot_provide(total).with_source(cause),
    }
}

/// The error for a guest that would get `total` bytes in all.
pub(super) fn cannot_provide(total: u64) -> Error {
    let message = format!("the host cannot provide {} MiB of memory for the guest", total >> 20);
    Error::new(ErrorKind::HostMemory, message)
}

#[cfg(test)]
mod tests {
    use super::super::smaps::flags_at;
    use super::*;

    #[test]
    fn an_empty_pool_of_huge_pages_is_not_told_as_a_limit_of_the_process() {
        let refused = |pages| refused(64 << 20, pages, Box::new(io::Error::from_raw_os_error(libc::ENOMEM)));
        let error = refused(PageSize::Huge2Mib);
        assert!(
            error.to_string().ends_with("(32 needed; /proc/sys/vm/nr_hugepages sets how many there are)"),
            "{error}"
        );
        assert!(error.chain().contains("Cannot allocate memory"), "{error:?}");
        assert!(refused(PageSize::Default).to_string().contains("max_map_count"));
    }

    #[test]
    fn neither_a_child_process_nor_a_core_dump_gets_the_guests_memory() {
        for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
            let wanted = Wanted { gpa: 0, size: 1 << 20, total: 1 << 20 };
            let mapped = map(wanted, Source::New(backing), PageSize::Transparent).unwrap();
            let flags = flags_at(mapped.region.as_ptr() as usize);
            assert!(flags.contains(" dc ") && flags.contains(" dd "), "{backing:?}: {flags}");
        }
    }
}
