//! How much memory the host keeps for a guest.

use super::ground::Ground;
use super::guest::GuestMemory;
use super::own_pages::{Kept, each_page, untold};
use crate::error::Result;
use crate::sys::lock;

const PAGE: u64 = 4096;

/// What the host keeps of a VM's RAM, from [`Vm::memory_use`](crate::Vm::memory_use).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Bytes that are this VM's alone, pages of zeroes that it has only read left out: they are free once it is gone, unless a snapshot of it is kept.
    pub own_bytes: u64,
    /// Bytes that it uses of a snapshot, which others that began with it may use as well.
    pub shared_bytes: u64,
}

impl GuestMemory {
    /// Asks the kernel of each page.
    ///
    /// # Errors
    /// [`Host`](crate::ErrorKind::Host) without `/proc`.
    pub(crate) fn usage(&self) -> Result<MemoryUse> {
        let mut usage = MemoryUse::default();
        for (mapping, ground) in self.mappings.iter().zip(&*lock(&self.grounds)) {
            // What lies on a file that is nobody else's is its own, too.
            let is_own_file = matches!(ground, Ground::Shared(_));
            let asked = each_page(mapping, |_, kept| {
                let bytes = match kept {
                    Kept::Nothing | Kept::Common => return,
                    Kept::Own => &mut usage.own_bytes,
                    Kept::OfFile if is_own_file => &mut usage.own_bytes,
                    Kept::OfFile => &mut usage.shared_bytes,
                };
                *bytes = bytes.saturating_add(PAGE);
            });
            asked.map_err(untold)?;
        }
        Ok(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MemoryBacking, MemoryConfig};
    use crate::memory::GuestAddress;

    #[test]
    fn pages_count_as_own_once_they_are_changed_and_as_shared_while_they_are_those_of_a_template() {
        let regions = [(GuestAddress(0), 8 << 20)];
        let config = MemoryConfig::default().backing(MemoryBacking::Memfd);
        let source = GuestMemory::configured(&regions, &config).unwrap();
        let usage = |memory: &GuestMemory| {
            let usage = memory.usage().unwrap();
            (usage.own_bytes, usage.shared_bytes)
        };
        assert_eq!(usage(&source), (0, 0));
        source.write(GuestAddress(0), &[1; 64 << 10]).unwrap();
        assert_eq!(usage(&source), (64 << 10, 0));
        let template = source.freeze(&source.survey(), &config).unwrap().finish();
        let fork = GuestMemory::copy_of(&template, &regions, &config).unwrap();
        let mut byte = [0];
        (0..16).for_each(|page| fork.read(GuestAddress(page * PAGE), &mut byte).unwrap());
        let (own, shared) = usage(&fork);
        assert!(own == 0 && shared == 64 << 10, "{own} {shared}");
        fork.write(GuestAddress(0), &[2; 8192]).unwrap();
        assert_eq!(usage(&fork), (8192, 56 << 10));
        // What was never used is zeroes, of which the kernel has one page for all.
        (1024..1040).for_each(|page| fork.read(GuestAddress(page * PAGE), &mut byte).unwrap());
        assert_eq!(usage(&fork), (8192, 56 << 10));
        fork.write(GuestAddress(1024 * PAGE), &[3]).unwrap();
        assert_eq!(usage(&fork), (12288, 56 << 10));
        // A copy of it has that page, too.
        let template = fork.freeze(&fork.survey(), &config).unwrap().finish();
        let second = GuestMemory::copy_of(&template, &regions, &config).unwrap();
        second.read(GuestAddress(1024 * PAGE), &mut byte).unwrap();
        assert_eq!(byte, [3]);
    }
}
