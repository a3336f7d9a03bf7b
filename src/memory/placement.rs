//! From which NUMA node the host takes memory, and that it stays there rather than on a disk.

use std::io;

use vm_memory::MmapRegion;

use crate::config::{MAX_NUMA_NODE, cpu_list};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lockable_bytes;

/// A set of nodes, a bit each.
const WORDS: usize = (MAX_NUMA_NODE as usize + 1) / u64::BITS as usize;
type Nodes = [u64; WORDS];

/// The kernel takes one bit less than it is told that there are.
const BITS: usize = WORDS * u64::BITS as usize + 1;

/// The nodes that this process may have memory of.
const MEMS_ALLOWED: libc::c_ulong = 1 << 2;

/// Refuses a node that this process cannot have memory of.
pub(super) fn check_node(node: u32) -> Result<()> {
    let allowed = allowed_nodes().map_err(|e| {
        Error::new(ErrorKind::Host, "the host does not tell which NUMA nodes are allowed").with_source(e)
    })?;
    if allowed.contains(&node) {
        return Ok(());
    }
    let message = format!(
        "guest memory of NUMA node {node} was asked for, allowed by the host are {} for this process",
        cpu_list(&allowed)
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

fn allowed_nodes() -> io::Result<Vec<u32>> {
    let mut nodes: Nodes = [0; WORDS];
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes to the set no more bits than it is told that there are, less one, and takes no address with this flag.
    let done = unsafe { libc::syscall(libc::SYS_get_mempolicy, none, nodes.as_mut_ptr(), BITS, none, MEMS_ALLOWED) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let has = |node: &u32| {
        let word = nodes.get(*node as usize / 64).copied().unwrap_or_default();
        word >> (node % 64) & 1 == 1
    };
    Ok((0..=MAX_NUMA_NODE).filter(has).collect())
}

/// Has the host take pages of a region from a node, as long as that has some. Those that are there already stay where they are.
pub(super) fn prefer_node(region: &MmapRegion, node: u32) -> io::Result<()> {
    let mut nodes: Nodes = [0; WORDS];
    let word = nodes.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word |= 1 << (node % 64);
    let (start, mode, flags) = (region.as_ptr(), libc::c_long::from(libc::MPOL_PREFERRED), 0 as libc::c_long);
    // SAFETY: the range is exactly one mapping, which `region` keeps, and what it holds stays as it is. The set has as many bits as is
    // said, less one.
    let done = unsafe { libc::syscall(libc::SYS_mbind, start, region.size(), mode, nodes.as_ptr(), BITS, flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps pages of a region in memory once they are there.
pub(super) fn lock(region: &MmapRegion) -> io::Result<()> {
    // SAFETY: the range is exactly one mapping, which `region` keeps, and what it holds stays as it is.
    let done = unsafe { libc::syscall(libc::SYS_mlock2, region.as_ptr(), region.size(), libc::MLOCK_ONFAULT) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The error for `total` bytes that cannot be kept in memory.
pub(super) fn cannot_lock(total: u64, cause: &io::Error) -> Error {
    let limit = match lockable_bytes() {
        Some(bytes) => format!("{} KiB", bytes >> 10),
        None => "unlimited".to_owned(),
    };
    let message = format!(
        "the host does not let {} KiB of guest memory be locked; the limit of this process is {limit} in all (RLIMIT_MEMLOCK, ulimit -l), \
         unless it has CAP_IPC_LOCK",
        total >> 10
    );
    // As text: the usual hint for this cause is about other limits.
    Error::new(ErrorKind::HostMemory, message).with_source(cause.to_string())
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::super::smaps::flags_at;
    use super::*;
    use crate::config::{MemoryBacking, MemoryConfig, PageSize};
    use crate::memory::{GuestAddress, GuestMemory};

    const LEN: u64 = 4 << 20;
    const REGIONS: [(GuestAddress, u64); 2] = [(GuestAddress(0), LEN), (GuestAddress(2 * LEN), LEN)];

    fn memory(backing: MemoryBacking) -> GuestMemory {
        GuestMemory::map(&REGIONS, backing, PageSize::Default).unwrap()
    }

    /// How the kernel places the page at an address: the mode, and the nodes.
    fn policy_at(address: u64) -> (i32, Nodes) {
        const ADDR: libc::c_ulong = 1 << 1;
        let (mut mode, mut nodes): (i32, Nodes) = (-1, [0; WORDS]);
        // SAFETY: the kernel writes a number and as many bits as is said, less one.
        let done =
            unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), BITS, address, ADDR) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        (mode, nodes)
    }

    #[test]
    fn memory_is_taken_from_the_node_that_was_asked_for() {
        let Ok(allowed) = allowed_nodes() else { return };
        let node = *allowed.last().unwrap();
        let mut expected: Nodes = [0; WORDS];
        expected[node as usize / 64] = 1 << (node % 64);
        for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
            let memory = memory(backing);
            let ends = |memory: &GuestMemory| -> Vec<_> {
                let regions: Vec<_> = memory.regions().collect();
                regions.iter().flat_map(|at| [at.host_address, at.host_address + at.len - 1]).map(policy_at).collect()
            };
            assert!(ends(&memory).iter().all(|(mode, _)| *mode == libc::MPOL_DEFAULT), "{backing:?}");
            memory.prefer_node(node).unwrap();
            assert_eq!(ends(&memory), [(libc::MPOL_PREFERRED, expected); 4], "{backing:?}");
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_refused_with_those_that_are() {
        let Ok(allowed) = allowed_nodes() else { return };
        let missing = (0..=MAX_NUMA_NODE).rev().find(|node| !allowed.contains(node)).unwrap();
        for node in [missing, MAX_NUMA_NODE + 1, u32::MAX] {
            let error = memory(MemoryBacking::Anonymous).prefer_node(node).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            let expected = format!(
                "guest memory of NUMA node {node} was asked for, allowed by the host are {} for this process",
                cpu_list(&allowed)
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    /// What the process may lock anyway.
    fn is_free_to_lock() -> bool {
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
            || lockable_bytes().is_none_or(|bytes| bytes >= 64 << 20)
    }

    #[test]
    fn locked_memory_is_marked_so_and_not_taken_at_once() {
        if !is_free_to_lock() {
            return;
        }
        for backing in [MemoryBacking::Anonymous, MemoryBacking::Memfd] {
            let memory = memory(backing);
            for region in memory.regions() {
                assert!(!flags_at(region.host_address as usize).contains(" lo "), "{backing:?}");
            }
            memory.lock().unwrap();
            for region in memory.regions() {
                let flags = flags_at(region.host_address as usize);
                // On a fault (lf): pages that nobody uses are not taken.
                assert!(flags.contains(" lo ") && flags.contains(" lf "), "{backing:?}: {flags}");
            }
        }
    }

    /// Capabilities are a thread's own, so that other tests keep theirs.
    #[test]
    fn memory_that_may_not_be_locked_is_refused_with_the_limit_and_the_size() {
        let Some(limit) = lockable_bytes().filter(|bytes| *bytes < 1 << 32) else { return };
        let refused = std::thread::spawn(move || {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::IPC_LOCK);
            set_capabilities(None, sets).unwrap();
            let regions = [(GuestAddress(0), limit / 4096 * 4096 + 4096)];
            let config = MemoryConfig::default().locked(true);
            GuestMemory::configured(&regions, &config).unwrap_err()
        });
        let error = refused.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::HostMemory);
        let (needed, limit) = (limit / 4096 * 4 + 4, limit >> 10);
        let expected = format!(
            "the host does not let {needed} KiB of guest memory be locked; the limit of this process is {limit} KiB in all (RLIMIT_MEMLOCK, \
             ulimit -l), unless it has CAP_IPC_LOCK"
        );
        assert_eq!(error.to_string(), expected);
        assert!(!error.chain().contains("max_map_count"), "{error:?}");
    }

    #[test]
    fn memory_is_placed_before_it_is_taken() {
        let Ok(allowed) = allowed_nodes() else { return };
        let missing = allowed.last().unwrap() + 1;
        let error = GuestMemory::configured(&REGIONS, &MemoryConfig::default().numa_node(missing).prealloc(true));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidConfig);
        let config = MemoryConfig::default().numa_node(allowed[0]).prealloc(true).backing(MemoryBacking::Memfd);
        let memory = GuestMemory::configured(&REGIONS, &config).unwrap();
        assert_eq!(policy_at(memory.regions().next().unwrap().host_address).0, libc::MPOL_PREFERRED);
    }
}
