//! Taking memory from the host before the guest uses it, so that the host cannot refuse it then.

use std::io;

use vm_memory::MmapRegion;

use super::ground::Ground;
use crate::config::{MemoryBacking, PageSize};
use crate::sys::allocate;

/// How the host promises memory (`vm.overcommit_memory`): never more than it can provide.
const STRICT: &str = "2";

/// Whether a page that the guest uses for the first time could be one that the host does not have, although it was mapped.
///
/// A strict host accounts for private memory when it is mapped, and for pages of 2 MiB it keeps a reserve in any case. What
/// it does not account for before it is used is shared memory, and then the access faults: ours would end the process.
/// `overcommit` is called only if it matters.
pub(super) fn may_be_refused_later(
    backing: MemoryBacking,
    pages: PageSize,
    overcommit: impl FnOnce() -> String,
) -> bool {
    backing == MemoryBacking::Memfd && pages != PageSize::Huge2Mib && overcommit().trim() == STRICT
}

/// The host's way to promise memory. Without `/proc` it is not known, and taken to be the usual one.
pub(super) fn overcommit() -> String {
    std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default()
}

/// Takes every page of a region from the host. Blocks for as long as the host clears pages.
pub(super) fn take_all(region: &MmapRegion, ground: &Ground) -> io::Result<()> {
    match ground {
        Ground::Shared(file) => allocate(file, 0, region.size() as u64),
        Ground::Anonymous | Ground::Private(_) => populate(region),
    }
}

fn populate(region: &MmapRegion) -> io::Result<()> {
    loop {
        // SAFETY: the range is exactly one mapping, which `region` owns and keeps. Its pages are made present as a write of
        // what they hold would do; nothing is changed.
        let done = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_POPULATE_WRITE) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_shared_pages_of_a_strict_host_are_refused_late() {
        let refused = |backing, pages, mode| may_be_refused_later(backing, pages, || String::from(mode));
        assert!(refused(MemoryBacking::Memfd, PageSize::Default, "2\n"));
        assert!(refused(MemoryBacking::Memfd, PageSize::Transparent, "2\n"));
        assert!(!refused(MemoryBacking::Memfd, PageSize::Huge2Mib, "2\n"));
        assert!(!refused(MemoryBacking::Anonymous, PageSize::Default, "2\n"));
        for usual in ["0\n", "1\n", ""] {
            assert!(!refused(MemoryBacking::Memfd, PageSize::Default, usual), "{usual:?}");
        }
    }
}
