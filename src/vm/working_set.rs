//! Which parts of its RAM a guest needs first, so that they are read ahead the next time.

use std::path::Path;

use super::snapshot::Snapshot;
use super::vm::Vm;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::GuestAddress;
use crate::save::{read_working_set, write_working_set};

/// Which parts of its RAM a guest has used, from [`Vm::working_set`].
///
/// A VM that begins with a [mapped](crate::LoadMemory::Map) snapshot waits for the storage at each page that it uses first. One that did so once has shown
/// which those are; [`Snapshot::read_ahead`] asks for all of them together, before the next one runs. It is a hint: what it does not name is read when
/// it is used.
///
/// ```no_run
/// # fn main() -> vmcell::Result<()> {
/// use vmcell::{LoadMemory, Snapshot, Vm, WorkingSet};
///
/// let snapshot = Snapshot::load_with("vm.snapshot", LoadMemory::Map)?;
/// let vm = Vm::builder().fork_of(&snapshot).build()?;
/// vm.start()?;
/// // Once the guest has answered its first request:
/// vm.working_set()?.save("vm.working-set")?;
///
/// // The next time, perhaps after the host was booted:
/// let snapshot = Snapshot::load_with("vm.snapshot", LoadMemory::Map)?;
/// snapshot.read_ahead(&WorkingSet::load("vm.working-set")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkingSet {
    ranges: Vec<(GuestAddress, u64)>,
}

impl WorkingSet {
    /// Takes one from a file. Needs the feature `save`.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] for a file that cannot be read, is no working set, or takes more than 64 MiB.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        read_working_set(path).map(|ranges| Self { ranges }).map_err(|e| e.about(&named(path)))
    }

    /// Puts it in a file, which is on storage when this returns, and replaces one of that name at once. What it says of the guest is less than what the
    /// snapshot holds; the file can be read by its owner alone all the same.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] if the file cannot be written, or would take more than 64 MiB.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_working_set(path, &self.ranges).map_err(|e| e.about(&named(path)))
    }

    /// Returns the address and the length in bytes of each part. Parts that are less than 64 KiB apart are one.
    pub fn ranges(&self) -> impl Iterator<Item = (GuestAddress, u64)> {
        self.ranges.iter().copied()
    }

    /// Returns how many bytes of RAM its parts have together.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len))
    }
}

impl Vm {
    /// Returns which parts of its RAM the guest, or its devices, have used since the VM began, as far as the host has not taken them away again. Any thread may ask, in any
    /// state of the VM; it takes about a millisecond for each GiB, since the kernel is asked of each page. The kernel maps what is in
    /// its cache near a page that is used, which counts as well.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] without `/proc`, in a jail for instance.
    pub fn working_set(&self) -> Result<WorkingSet> {
        Ok(WorkingSet { ranges: self.saves.memory.used()? })
    }
}

impl Snapshot {
    /// Asks the host to read parts of the RAM into its cache, as far as they lie in files: a snapshot that was [mapped](crate::LoadMemory::Map) is faster then.
    /// It does not wait until all is read, but for the storage to take the requests. Of one that is in memory, nothing is to be read.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] if a part is not within the RAM, or the host refuses to read.
    pub fn read_ahead(&self, parts: &WorkingSet) -> Result<()> {
        let memory = &self.parts.memory;
        for (start, len) in parts.ranges() {
            let place = memory.regions().enumerate().find_map(|(region, (first, size))| {
                let offset = start.0.checked_sub(first.0)?;
                (offset.checked_add(len)? <= size).then_some((region, offset))
            });
            let Some((region, offset)) = place else {
                let message =
                    format!("{len} bytes at {:#x} are to be read ahead, which is not within the guest's RAM", start.0);
                return Err(Error::new(ErrorKind::Snapshot, message));
            };
            memory
                .read_ahead(region, offset, len)
                .map_err(|e| Error::new(ErrorKind::Snapshot, "it cannot be read ahead").with_source(e))?;
        }
        Ok(())
    }
}

fn named(path: &Path) -> String {
    format!("the working set {}", path.display())
}
