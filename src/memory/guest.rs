//! Checked access to the guest's RAM by guest physical address.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use vm_memory::{
    Bytes, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, GuestUsize, VolatileSlice,
};
use zerocopy::{Immutable, IntoBytes};

use super::address::GuestAddress;
use super::aligned::Mapping;
use super::ground::Ground;
use super::mapping::{Source, Wanted, cannot_provide, map};
use super::placement;
use super::preallocate::{may_be_refused_later, overcommit, take_all};
use crate::config::{MemoryBacking, MemoryConfig, PageSize};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lock;

/// The guest's RAM, in one or more regions. A clone is another handle to the same memory, which is unmapped when the last
/// handle is dropped.
///
/// Every access copies bytes, and may race with the guest: what was read may have changed since. Any thread may make any call.
/// No access blocks, except to page memory in.
///
/// ```
/// use vmcell::{GuestAddress, GuestMemory};
///
/// let memory = GuestMemory::anonymous(&[(GuestAddress(0), 1 << 20)])?;
/// memory.write(GuestAddress(0x1000), b"hello")?;
/// let mut bytes = [0; 5];
/// memory.read(GuestAddress(0x1000), &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// assert!(memory.write(GuestAddress((1 << 20) - 2), b"hello").is_err());
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GuestMemory {
    regions: Arc<GuestMemoryMmap>,
    /// The same regions, for accesses that stay inside of one: most do, and are quicker this way.
    spans: Arc<[Span]>,
    /// What the regions are views of, so dropped after them.
    pub(super) mappings: Arc<[Mapping]>,
    /// What lies under each of them.
    pub(super) grounds: Arc<Mutex<Vec<Ground>>>,
}

/// A region, and where the host sees it.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    len: u64,
    host: NonNull<u8>,
}

// SAFETY: the pointer leads into guest memory, which belongs to no thread. It is used only by its `GuestMemory`, which keeps the
// mapping alive.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

/// One contiguous range of the guest's RAM.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryRegion {
    /// The guest physical address of its first byte.
    pub start: GuestAddress,
    /// Its length in bytes.
    pub len: u64,
    /// Where we see its first byte; leaves this crate only for KVM.
    pub(crate) host_address: u64,
}

// The host's address is not for logs.
impl std::fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, len, .. } = self;
        write!(f, "MemoryRegion(gpa={start} len={len:#x})")
    }
}

impl GuestMemory {
    /// Maps private anonymous memory. Each region is given by its first guest physical address and its length in bytes, both
    /// multiples of 4096.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if there is no region, if one is empty or not aligned, or if they overlap or are not in
    /// ascending order; [`ErrorKind::HostMemory`] if the host refuses the mapping.
    pub fn anonymous(regions: &[(GuestAddress, u64)]) -> Result<Self> {
        Self::map(regions, MemoryBacking::Anonymous, PageSize::Default)
    }

    /// Maps memory that the host takes from `backing`, on pages of the given size.
    ///
    /// On a host that overcommits no memory (`vm.overcommit_memory` is 2), memory on memfd is
    /// [preallocated](Self::preallocate), because such a host may run out of memory later, and an access would then end the
    /// process.
    ///
    /// # Errors
    /// Those of [`anonymous`](Self::anonymous), with the page size in place of 4096.
    pub fn map(regions: &[(GuestAddress, u64)], backing: MemoryBacking, pages: PageSize) -> Result<Self> {
        Self::configured(regions, &MemoryConfig::default().backing(backing).pages(pages))
    }

    /// Maps memory as a configuration says, but for its size, which is that of the regions.
    pub(crate) fn configured(regions: &[(GuestAddress, u64)], config: &MemoryConfig) -> Result<Self> {
        let (backing, pages) = (config.backing, config.pages);
        let memory = Self::unplaced(regions, regions.iter().map(|_| Source::New(backing)), pages)?;
        memory.place(config)?;
        if config.prealloc || may_be_refused_later(backing, pages, overcommit) {
            memory.preallocate()?;
        }
        Ok(memory)
    }

    /// Before the first page is taken.
    pub(super) fn place(&self, config: &MemoryConfig) -> Result<()> {
        if let Some(node) = config.numa_node {
            self.prefer_node(node)?;
        }
        if config.locked {
            self.lock()?;
        }
        Ok(())
    }

    pub(super) fn unplaced<'a>(
        regions: &[(GuestAddress, u64)],
        sources: impl Iterator<Item = Source<'a>>,
        pages: PageSize,
    ) -> Result<Self> {
        let total = regions.iter().fold(0u64, |total, (_, len)| total.saturating_add(*len));
        let (mut mappings, mut grounds) = (Vec::new(), Vec::new());
        let mapped = regions.iter().zip(sources).map(|(&(start, len), source)| {
            let wanted = Wanted { gpa: start.0, size: check_region(start, len, pages)?, total };
            let mapped = map(wanted, source, pages)?;
            grounds.push(Ground::of(source, mapped.region.file_offset().map(|place| Arc::clone(place.arc()))));
            mappings.push(mapped.mapping);
            GuestRegionMmap::new(mapped.region, start.inner()).ok_or_else(|| past_the_end(start, len))
        });
        let regions = GuestMemoryMmap::from_regions(mapped.collect::<Result<_>>()?).map_err(|cause| {
            let message = "the guest memory's regions must be at least one, ascending and apart";
            Error::new(ErrorKind::InvalidConfig, message).with_source(cause)
        })?;
        let spans = regions.iter().filter_map(Span::of).collect();
        let grounds = Arc::new(Mutex::new(grounds));
        Ok(Self { regions: Arc::new(regions), spans, mappings: mappings.into(), grounds })
    }

    /// Takes all of the memory from the host now, rather than page by page when the guest first uses each one. The content
    /// stays as it is. Blocks for as long as the host clears pages.
    ///
    /// # Errors
    /// [`ErrorKind::HostMemory`] if the host cannot provide the memory, or if its kernel cannot do this. For private anonymous
    /// memory, it takes Linux 5.14.
    pub fn preallocate(&self) -> Result<()> {
        let grounds = lock(&self.grounds);
        self.regions
            .iter()
            .zip(&*grounds)
            .try_for_each(|(region, ground)| take_all(region, ground))
            .map_err(|e| cannot_provide(self.size()).with_source(e))
    }

    /// Has the host take memory that was not used yet from a NUMA node, as long as that node has some; see
    /// [`MemoryConfig::numa_node`](crate::MemoryConfig::numa_node()). What was used stays where it is. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if this process may not have memory of that node; [`ErrorKind::HostMemory`] or [`ErrorKind::Host`] if
    /// the kernel cannot do this.
    pub fn prefer_node(&self, node: u32) -> Result<()> {
        placement::check_node(node)?;
        self.regions.iter().try_for_each(|region| placement::prefer_node(region, node)).map_err(|e| {
            let message = format!("the host does not take guest memory from NUMA node {node}");
            Error::new(ErrorKind::HostMemory, message).with_source(e)
        })
    }

    /// Locks each page in memory from when it is first used, so that it is never written to swap space; see
    /// [`MemoryConfig::locked`](crate::MemoryConfig::locked()). Takes as long as the kernel needs to mark what was used already.
    ///
    /// # Errors
    /// [`ErrorKind::HostMemory`] if the process may not lock so much.
    pub fn lock(&self) -> Result<()> {
        self.regions
            .iter()
            .try_for_each(|region| placement::lock(region))
            .map_err(|e| placement::cannot_lock(self.size(), &e))
    }

    /// Returns the regions in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = MemoryRegion> + '_ {
        self.regions.iter().map(|region| MemoryRegion {
            start: GuestAddress(region.start_addr().0),
            len: region.len(),
            host_address: region.as_ptr() as u64,
        })
    }

    /// Returns the size of all regions together, in bytes.
    pub fn size(&self) -> u64 {
        self.regions.iter().map(GuestMemoryRegion::len).sum::<GuestUsize>()
    }

    /// Whether all of the `len` bytes from `gpa` on are RAM. An empty range must start in RAM, too.
    pub fn contains(&self, gpa: GuestAddress, len: u64) -> bool {
        if len > 0 && self.span(gpa, len).is_some() {
            return true;
        }
        match usize::try_from(len) {
            Ok(0) => self.regions.address_in_range(gpa.inner()),
            Ok(len) => GuestMemoryBackend::check_range(&*self.regions, gpa.inner(), len),
            Err(_) => false,
        }
    }

    /// Whether all of the `len` bytes from `gpa` on lie inside one region.
    pub(crate) fn is_in_one_region(&self, gpa: GuestAddress, len: u64) -> bool {
        self.span(gpa, len).is_some()
    }

    /// Copies from the guest's memory.
    ///
    /// # Errors
    /// [`ErrorKind::GuestAddress`] if a byte of the range is not RAM. A part of `bytes` may be filled then.
    pub fn read(&self, gpa: GuestAddress, bytes: &mut [u8]) -> Result<()> {
        if let Some(slice) = self.slice(gpa, bytes.len()) {
            // As many bytes as there are.
            slice.copy_to(bytes);
            return Ok(());
        }
        self.check(gpa, bytes.len())?;
        self.regions.read_slice(bytes, gpa.inner()).map_err(|e| outside(gpa, bytes.len()).with_source(e))
    }

    /// Copies into the guest's memory.
    ///
    /// # Errors
    /// [`ErrorKind::GuestAddress`] if a byte of the range is not RAM. Nothing is written then.
    pub fn write(&self, gpa: GuestAddress, bytes: &[u8]) -> Result<()> {
        if let Some(slice) = self.slice(gpa, bytes.len()) {
            slice.copy_from(bytes);
            return Ok(());
        }
        self.check(gpa, bytes.len())?;
        self.regions.write_slice(bytes, gpa.inner()).map_err(|e| outside(gpa, bytes.len()).with_source(e))
    }

    /// Copies a plain value out of the guest's memory.
    #[cfg(test)]
    pub(crate) fn read_value<T: zerocopy::FromBytes + IntoBytes>(&self, gpa: GuestAddress) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(gpa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a plain value into the guest's memory.
    pub(crate) fn write_value<T: IntoBytes + Immutable>(&self, gpa: GuestAddress, value: &T) -> Result<()> {
        self.write(gpa, value.as_bytes())
    }

    /// The memory in the form that `virtio-queue` and `linux-loader` take.
    pub(crate) fn mmap(&self) -> &GuestMemoryMmap {
        &self.regions
    }

    /// The host's view of a range, cut where regions meet.
    pub(super) fn slices(
        &self,
        gpa: GuestAddress,
        len: usize,
    ) -> Result<impl Iterator<Item = Result<VolatileSlice<'_>>>> {
        self.check(gpa, len)?;
        let slices = GuestMemoryBackend::get_slices(&*self.regions, gpa.inner(), len);
        Ok(slices.map(move |slice| slice.map_err(|e| outside(gpa, len).with_source(e))))
    }

    /// Where the host sees a range that lies inside one region.
    pub(super) fn host_range(&self, gpa: GuestAddress, len: usize) -> Result<NonNull<u8>> {
        self.span(gpa, len as u64).ok_or_else(|| outside(gpa, len))
    }

    /// The host's view of a range, if it is not empty and lies inside one region.
    pub(super) fn slice(&self, gpa: GuestAddress, len: usize) -> Option<VolatileSlice<'_>> {
        let start = self.span(gpa, len as u64).filter(|_| len > 0)?;
        // SAFETY: the range lies inside a mapping that `self` keeps alive, and is only reached by volatile copies.
        Some(unsafe { VolatileSlice::new(start.as_ptr(), len) })
    }

    fn span(&self, gpa: GuestAddress, len: u64) -> Option<NonNull<u8>> {
        self.spans.iter().find_map(|span| span.find(gpa.0, len))
    }

    fn check(&self, gpa: GuestAddress, len: usize) -> Result<()> {
        if self.contains(gpa, len as u64) { Ok(()) } else { Err(outside(gpa, len)) }
    }
}

impl Span {
    fn of(region: &GuestRegionMmap) -> Option<Self> {
        Some(Self { start: region.start_addr().0, len: region.len(), host: NonNull::new(region.as_ptr())? })
    }

    /// Where the host sees `len` bytes from `gpa` on, if they lie inside.
    fn find(&self, gpa: u64, len: u64) -> Option<NonNull<u8>> {
        let offset = gpa.checked_sub(self.start)?;
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let offset = usize::try_from(offset).ok().filter(|_| fits)?;
        // SAFETY: the offset is inside the mapping.
        Some(unsafe { self.host.add(offset) })
    }
}

/// The size of a region, if there can be one like it.
fn check_region(start: GuestAddress, len: u64, pages: PageSize) -> Result<usize> {
    let alignment = pages.bytes();
    if len == 0 || !len.is_multiple_of(alignment) || !start.0.is_multiple_of(alignment) {
        let message = format!(
            "the guest memory region gpa={start} len={len:#x} is empty or not aligned to pages of {alignment:#x} bytes"
        );
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    start.checked_add(len).ok_or_else(|| past_the_end(start, len))?;
    usize::try_from(len).map_err(|_| past_the_end(start, len))
}

fn past_the_end(start: GuestAddress, len: u64) -> Error {
    let message = format!("the guest memory region gpa={start} len={len:#x} runs past the end of the address space");
    Error::new(ErrorKind::InvalidConfig, message)
}

fn outside(gpa: GuestAddress, len: usize) -> Error {
    Error::new(ErrorKind::GuestAddress, format!("gpa={gpa} len={len:#x} is not inside the guest's memory"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LEN: u64 = 1 << 20;

    #[test]
    fn preallocated_anonymous_memory_is_present_and_keeps_what_it_holds() {
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), LEN), (GuestAddress(2 * LEN), LEN)]).unwrap();
        memory.write(GuestAddress(2 * LEN), b"kept").unwrap();
        memory.preallocate().unwrap();
        memory.preallocate().unwrap();
        let mut bytes = [0; 4];
        memory.read(GuestAddress(2 * LEN), &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");
        for region in memory.regions() {
            assert_eq!(present(&region), LEN / 4096, "{region:?}");
        }
    }

    #[test]
    fn preallocated_memory_on_memfd_has_all_its_storage() {
        let regions = [(GuestAddress(0), LEN), (GuestAddress(2 * LEN), LEN)];
        let memory = GuestMemory::map(&regions, MemoryBacking::Memfd, PageSize::Default).unwrap();
        memory.preallocate().unwrap();
        for region in memory.regions.iter() {
            let file = region.file_offset().unwrap().file().metadata().unwrap();
            assert_eq!((file.len(), file.blocks() * 512), (LEN, LEN));
        }
    }

    /// How many pages of a region are in memory, as `/proc/self/pagemap` says: bit 63 of each page's 8 bytes.
    fn present(region: &MemoryRegion) -> u64 {
        use std::os::unix::fs::FileExt;
        let mut entries = vec![0; (region.len / 4096 * 8) as usize];
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        pagemap.read_exact_at(&mut entries, region.host_address / 4096 * 8).unwrap();
        entries.chunks(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64
    }
}
