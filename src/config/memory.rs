//! The size of the guest's RAM, and where the host takes it from.

use crate::error::{Error, ErrorKind, Result};

/// No kernel that we know starts with less.
const MIN_MIB: u64 = 16;
/// The guest physical address space that every x86_64 CPU with KVM has at least: 2^36 bytes would be the architectural
/// minimum, but all CPUs with nested paging have 2^40 or more. KVM refuses more than the host's CPU can address.
const MAX_MIB: u64 = 1 << (40 - 20);

/// Linux can be built for no more NUMA nodes than 1024, counted from 0.
pub(crate) const MAX_NUMA_NODE: u32 = 1023;

/// Where the host takes the guest's memory from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum MemoryBacking {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// An unnamed file in memory (memfd), which can be mapped more than once, also by another process. The process keeps its descriptors, one
    /// for each region of RAM, for as long as the RAM lives: a file without a name is reached by nothing else. They are closed when a
    /// child executes a program. A child that is only forked has them, and could map the guest's RAM, so a host program that forks
    /// such children takes anonymous memory.
    Memfd,
}

/// The pages that back the guest's memory on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum PageSize {
    /// Pages of the sizes that the host's policy for transparent huge pages gives.
    #[default]
    Default,
    /// Asks for transparent huge pages; falls back to small ones if there are none.
    Transparent,
    /// Pages of 2 MiB from the host's reserved pool; refused if the pool has too few.
    #[cfg_attr(feature = "serde", serde(rename = "2mib"))]
    Huge2Mib,
}

impl PageSize {
    /// Sizes and addresses must be a multiple of this, in bytes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Default | Self::Transparent => 4 << 10,
            Self::Huge2Mib => 2 << 20,
        }
    }
}

/// The guest's RAM.
///
/// ```
/// use vmcell::{MemoryBacking, MemoryConfig, PageSize};
///
/// let memory = MemoryConfig::mib(256).backing(MemoryBacking::Memfd).pages(PageSize::Transparent);
/// assert_eq!(memory.bytes(), 256 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"mib\": 256 }")
)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Its size in MiB, 16 to 1048576; an even number on pages of 2 MiB.
    pub mib: u64,
    /// Where the host takes it from. The default is [`MemoryBacking::Anonymous`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub backing: MemoryBacking,
    /// Which pages back it. The default is [`PageSize::Default`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub pages: PageSize,
    /// Whether all of it is taken from the host while the VM is built; see [`prealloc`](Self::prealloc()). The default is not to.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub prealloc: bool,
    /// The NUMA node that the host takes it from; see [`numa_node`](Self::numa_node()). The default is the host's choice.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub numa_node: Option<u32>,
    /// Whether it is locked in memory; see [`locked`](Self::locked()). The default is not to.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub locked: bool,
}

impl Default for MemoryConfig {
    /// 128 MiB of private anonymous memory.
    fn default() -> Self {
        Self::mib(128)
    }
}

impl MemoryConfig {
    /// `mib` MiB of private anonymous memory; at least 16.
    pub fn mib(mib: u64) -> Self {
        Self {
            mib,
            backing: MemoryBacking::default(),
            pages: PageSize::default(),
            prealloc: false,
            numa_node: None,
            locked: false,
        }
    }

    /// Where the host takes the memory from.
    #[must_use]
    pub fn backing(mut self, backing: MemoryBacking) -> Self {
        self.backing = backing;
        self
    }

    /// Which pages back the memory.
    #[must_use]
    pub fn pages(mut self, pages: PageSize) -> Self {
        self.pages = pages;
        self
    }

    /// Whether all of it is taken from the host while the VM is built, rather than page by page when the guest first uses
    /// one. The default is not to. It takes as long as the host needs to clear the pages, and, for private anonymous memory,
    /// Linux 5.14.
    ///
    /// Memory on memfd is taken so in any case if the host overcommits none (`vm.overcommit_memory` is 2, as far as `/proc`
    /// tells): it could run out later, and the access would end the process.
    #[must_use]
    pub fn prealloc(mut self, prealloc: bool) -> Self {
        self.prealloc = prealloc;
        self
    }

    /// The NUMA node that the host takes the memory from, 0 to 1023, as long as that node has free memory: after that, it takes memory
    /// from others, rather than end a process. By default it chooses the node of the CPU that first uses a page.
    ///
    /// Building the VM fails if this process may not have memory of that node. [`Affinity`](crate::Affinity) puts the VM's threads on CPUs of the same node.
    #[must_use]
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Whether memory that the guest has used is locked, and so never written to swap space. The default is not to.
    ///
    /// Pages are locked as they are used, so all of them with [`prealloc`](Self::prealloc()) on private anonymous memory. All of the memory
    /// counts against `RLIMIT_MEMLOCK` (`ulimit -l`) from the beginning, unless the thread that builds the VM has `CAP_IPC_LOCK`; if that is too low, building
    /// fails, and says how much is needed. [Pages of 2 MiB](PageSize::Huge2Mib) are never swapped, and count against nothing.
    #[must_use]
    pub fn locked(mut self, locked: bool) -> Self {
        self.locked = locked;
        self
    }

    /// Its size in bytes; `u64::MAX` if that does not fit into 64 bits.
    pub fn bytes(&self) -> u64 {
        self.mib.saturating_mul(1 << 20)
    }

    /// Refuses sizes that no guest can have.
    pub(crate) fn validate(&self) -> Result<()> {
        let mib = self.mib;
        if !(MIN_MIB..=MAX_MIB).contains(&mib) {
            let message = format!("{mib} MiB of memory were asked for, allowed are {MIN_MIB} to {MAX_MIB} MiB");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if !self.bytes().is_multiple_of(self.pages.bytes()) {
            let message = format!("{mib} MiB of memory were asked for, on 2 MiB pages only even numbers are allowed");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if let Some(node) = self.numa_node.filter(|node| *node > MAX_NUMA_NODE) {
            let message = format!("guest memory of NUMA node {node} was asked for, allowed are 0 to {MAX_NUMA_NODE}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(memory: MemoryConfig) -> String {
        memory.validate().unwrap_err().to_string()
    }

    #[test]
    fn sizes_outside_the_range_are_refused() {
        assert!(MemoryConfig::mib(16).validate().is_ok());
        assert!(MemoryConfig::mib(MAX_MIB).validate().is_ok());
        let allowed = "allowed are 16 to 1048576 MiB";
        for mib in [0, 15, MAX_MIB + 1, u64::MAX] {
            assert_eq!(refusal(MemoryConfig::mib(mib)), format!("{mib} MiB of memory were asked for, {allowed}"));
        }
    }

    #[test]
    fn nodes_that_no_kernel_has_are_refused() {
        assert!(MemoryConfig::mib(16).numa_node(1023).validate().is_ok());
        let expected = "guest memory of NUMA node 1024 was asked for, allowed are 0 to 1023";
        assert_eq!(refusal(MemoryConfig::mib(16).numa_node(1024)), expected);
    }

    #[test]
    fn odd_sizes_need_small_pages() {
        assert!(MemoryConfig::mib(17).validate().is_ok());
        assert!(refusal(MemoryConfig::mib(17).pages(PageSize::Huge2Mib)).contains("only even numbers"));
    }
}
