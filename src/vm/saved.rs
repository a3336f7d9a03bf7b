//! Snapshots in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::snapshot::{Snapshot, SnapshotParts};
use crate::board::PortsState;
use crate::config::VmConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{ChipsState, CpuidEntry, VcpuState};
use crate::memory::{GuestAddress, Template};
use crate::save::{Base, Chain, Draft, LeftOut, Pace, Taken};
use crate::virtio::TransportState;

/// How many ranges may be left out of a file.
const MOST_LEFT_OUT: usize = 1024;

/// A block of RAM a second: a save that is slower sleeps for hours.
const SLOWEST: u64 = 64 << 10;

/// How a snapshot is put in a file; for [`Snapshot::save_with`].
///
/// ```no_run
/// # fn main() -> vmcell::Result<()> {
/// # let vm = vmcell::Vm::builder().build()?;
/// use vmcell::SaveOptions;
///
/// let monday = vm.snapshot()?;
/// monday.save("vm.monday")?;
/// // What has changed since, at most 100 MB a second.
/// let options = SaveOptions::new().since(&monday, "vm.monday").bytes_per_second(100_000_000);
/// vm.snapshot()?.save_with("vm.tuesday", &options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SaveOptions {
    since: Option<(Snapshot, PathBuf)>,
    bytes_per_second: Option<u64>,
    in_cache: bool,
    left_out: Vec<LeftOut>,
}

impl SaveOptions {
    /// All of the snapshot, as fast as it can be written, on storage when the call returns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out of the file what lies in that of an older snapshot of the same VM, or of the one that it was forked of, whose file is called `name`
    /// and stays in the same folder: loading reads both, and so on. Such files are 64 at most, the first one included.
    ///
    /// It costs nothing to find out what has changed if the VM's RAM lies on a [memfd](crate::MemoryBacking::Memfd). Anonymous RAM is copied at each
    /// snapshot, so that nothing is left out.
    pub fn since(mut self, older: &Snapshot, name: impl Into<PathBuf>) -> Self {
        self.since = Some((older.clone(), name.into()));
        self
    }

    /// Writes no more than so many bytes of RAM a second, 65,536 or more, so that others have their share of the storage.
    pub fn bytes_per_second(mut self, rate: u64) -> Self {
        self.bytes_per_second = Some(rate);
        self
    }

    /// Leaves a range of the guest's memory out of the file: what begins with it has zeroes there. It is for what must not lie on a disk, such as keys in memory that
    /// the guest has told its host program of. Copies elsewhere, in the guest's page cache for instance, are not found by this. A file that builds
    /// on this one has zeroes there as well, unless something was changed. May be said several times, up to 1,024. Forks of the snapshot in memory have all
    /// of it.
    pub fn leave_out(mut self, start: GuestAddress, len: u64) -> Self {
        self.left_out.push(LeftOut { start, len });
        self
    }

    /// Does not wait until the file is on storage: it may be lost, or be damaged, if the host crashes soon after. It is noticed then when
    /// the file is loaded.
    pub fn leave_in_cache(mut self) -> Self {
        self.in_cache = true;
        self
    }
}

/// How the RAM of a snapshot is taken from its file; for [`Snapshot::load_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadMemory {
    /// It is copied into memory, and each checksum is compared. The files may be changed, cut and deleted afterwards.
    #[default]
    Copy,
    /// The files are mapped, and nothing is read until a guest uses it. No checksum of the RAM is compared.
    ///
    /// The caller vouches that nobody changes the files for as long as the snapshot or a VM that began with it lives; to delete them, or to
    /// rename others to their place, is allowed. What a guest finds in a file that was changed is mixed, and the access to one that was cut
    /// ends the process (SIGBUS).
    Map,
}

/// What a VM that gave its RAM away takes it from.
pub(super) struct Away {
    pub(super) chain: Chain,
    pub(super) memory: LoadMemory,
}

/// All of a VM but its RAM, as a file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    config: VmConfig,
    cpu: Vec<CpuidEntry>,
    vcpus: Vec<VcpuState>,
    chips: ChipsState,
    ports: PortsState,
    devices: Vec<(String, TransportState)>,
    /// Where the guest finds the identifier of its generation, if it was told of one.
    generation: Option<u64>,
    /// Where its secrets were.
    #[cfg(feature = "secret")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<crate::secret::Place>,
}

impl Snapshot {
    /// Puts the snapshot in a file: all of it but the content of disks. The VM that it was taken of may go on, or be gone. Blocks for as
    /// long as writing takes, so that it is called on a thread for which that is no matter. `docs/snapshot.md` specifies the file. Needs
    /// the feature `save`.
    ///
    /// The file has no name, or another one in the same folder, until it is whole and on storage; then it takes its place, and that of a file
    /// which had the name. It can be read by its owner alone: what the guest had in its memory is in it, secrets too.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().build()?;
    /// use vmcell::{Disk, Snapshot, Vm};
    ///
    /// vm.snapshot()?.save("vm.snapshot")?;
    /// // Later, in another process, or on another host with such a CPU:
    /// let snapshot = Snapshot::load("vm.snapshot")?;
    /// let vm = Vm::builder().fork_of(&snapshot).disk(Disk::open("copy.img")?).build()?;
    /// vm.start()?; // where the other one was
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] if the file cannot be written, a full disk for instance; nothing of it is left then. [`ErrorKind::InvalidConfig`]
    /// if a path of the VM's description is not UTF-8.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, &SaveOptions::new())
    }

    /// Does the same as [`save`](Self::save), as the options say.
    ///
    /// # Errors
    /// Those of [`save`](Self::save). [`ErrorKind::Snapshot`] if the file that this one is to build on has another snapshot than was said,
    /// its name leads to another folder, this one would take its place, or 64 files build on each other already; [`ErrorKind::InvalidConfig`] for less than 65,536 bytes a second.
    pub fn save_with(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        let path = path.as_ref();
        self.write(path, options, &mut Pace::new(options.bytes_per_second))
    }

    pub(super) fn write(&self, path: &Path, options: &SaveOptions, pace: &mut Pace<'_>) -> Result<()> {
        self.put(path, options, pace).map_err(|error| error.about(&named(path)))
    }

    fn put(&self, path: &Path, options: &SaveOptions, pace: &mut Pace<'_>) -> Result<()> {
        if let Some(rate) = options.bytes_per_second.filter(|rate| *rate < SLOWEST) {
            let message = format!("{rate} bytes a second were asked for, allowed are {SLOWEST} or more");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let parts = &self.parts;
        check_left_out(&options.left_out, &parts.memory)?;
        let machine = Machine::of(parts);
        let machine = serde_json::to_vec(&machine)
            .map_err(|e| Error::new(ErrorKind::InvalidConfig, "the description cannot be saved").with_source(e))?;
        let base = match &options.since {
            None => None,
            Some((older, name)) => {
                let there = Chain::open(&path.with_file_name(name))
                    .map_err(|error| error.about(&format!("it is to build on {}", name.display())))?;
                if there.identity != older.parts.identity {
                    let message = format!("it is to build on {}, which holds another snapshot", name.display());
                    return Err(Error::new(ErrorKind::Snapshot, message));
                }
                there
                    .check_below(path)
                    .map_err(|error| error.about(&format!("it is to build on {}", name.display())))?;
                if !older.parts.memory.regions().eq(parts.memory.regions()) {
                    let message = "it is to build on the snapshot of a guest with another amount of RAM";
                    return Err(Error::new(ErrorKind::Snapshot, message));
                }
                let name = name.as_os_str().as_encoded_bytes();
                Some(Base { name, identity: there.identity, memory: &older.parts.memory })
            }
        };
        let draft = Draft {
            identity: parts.identity,
            machine: &machine,
            memory: &parts.memory,
            base,
            left_out: &options.left_out,
            sync: !options.in_cache,
            seal: None,
        };
        draft.write(path, pace)
    }

    /// Takes a snapshot from the file of that path, and from those that it builds on. Blocks for as long as reading it takes. Needs the
    /// feature `save`.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`] for a file that cannot be read, is no snapshot, is damaged or cut, was written by a newer version of the
    /// format, or is of another architecture; [`ErrorKind::HostMemory`] if there is no room for its RAM. Whether this host can run it is
    /// found out when a VM [is built](crate::VmBuilder::fork_of) with it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, LoadMemory::Copy)
    }

    /// Does the same as [`load`](Self::load), and takes the RAM as is said.
    ///
    /// # Errors
    /// Those of [`load`](Self::load). With [`LoadMemory::Map`], the files must not lie in more than 4096 pieces.
    pub fn load_with(path: impl AsRef<Path>, memory: LoadMemory) -> Result<Self> {
        let path = path.as_ref();
        let taken = match memory {
            LoadMemory::Copy => Taken::Copied,
            LoadMemory::Map => Taken::Mapped,
        };
        Chain::open(path).and_then(|chain| read(&chain, taken)).map_err(|error| error.about(&named(path)))
    }
}

/// Refuses ranges that are not in the RAM: what they are about would be in the file.
fn check_left_out(left_out: &[LeftOut], memory: &Template) -> Result<()> {
    let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
    if left_out.len() > MOST_LEFT_OUT {
        let count = left_out.len();
        return refused(format!("{count} ranges are to be left out, allowed are {MOST_LEFT_OUT}"));
    }
    for LeftOut { start, len } in left_out {
        let end = start.0.checked_add(*len);
        let is_ram = |(from, size): (GuestAddress, u64)| {
            from <= *start && end.is_some_and(|end| end <= from.0.saturating_add(size))
        };
        if !memory.regions().any(is_ram) {
            return refused(format!(
                "{len} bytes at {:#x} are to be left out, which is not within the guest's RAM",
                start.0
            ));
        }
    }
    Ok(())
}

fn read(chain: &Chain, taken: Taken) -> Result<Snapshot> {
    let machine: Machine = serde_json::from_slice(&chain.machine).map_err(|e| {
        let message = "it is damaged, or of a newer version: its machine cannot be read";
        Error::new(ErrorKind::Snapshot, message).with_source(e)
    })?;
    machine.check(chain)?;
    let memory = chain.memory(taken)?;
    let Machine {
        config,
        cpu,
        vcpus,
        chips,
        ports,
        devices,
        generation,
        #[cfg(feature = "secret")]
        secrets,
    } = machine;
    let (identity, generation) = (chain.identity, generation.map(GuestAddress));
    let standstill = Duration::ZERO;
    let parts = SnapshotParts {
        identity,
        standstill,
        config,
        memory,
        generation,
        cpu,
        vcpus,
        chips,
        ports,
        devices,
        #[cfg(feature = "secret")]
        secrets,
    };
    Ok(Snapshot { parts: Arc::new(parts) })
}

impl Machine {
    fn of(parts: &SnapshotParts) -> Self {
        let SnapshotParts { config, cpu, vcpus, chips, ports, devices, generation, .. } = parts;
        Self {
            config: config.clone(),
            cpu: cpu.clone(),
            vcpus: vcpus.clone(),
            chips: chips.clone(),
            ports: ports.clone(),
            devices: devices.clone(),
            generation: generation.map(|place| place.0),
            #[cfg(feature = "secret")]
            secrets: parts.secrets.clone(),
        }
    }

    /// Refuses what no snapshot of ours says. What is behind each number is checked where it is used.
    fn check(&self, chain: &Chain) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::Snapshot, message));
        let invalid = |error: Error| {
            Error::new(ErrorKind::Snapshot, "it is damaged: its description is refused").with_source(error)
        };
        self.config.validate().map_err(invalid)?;
        let (states, vcpus) = (self.vcpus.len(), self.config.vcpus);
        if u32::try_from(states) != Ok(vcpus) {
            return refused(format!("it is damaged: it has the states of {states} vCPUs, and {vcpus} are described"));
        }
        let (has, needs) =
            (chain.regions().fold(0u64, |sum, (_, len)| sum.saturating_add(len)), self.config.memory.bytes());
        if has != needs {
            return refused(format!("it is damaged: it has {has} bytes of RAM, and {needs} are described"));
        }
        Ok(())
    }
}

/// What messages call the snapshot in a file.
pub(super) fn named(path: &Path) -> String {
    format!("the snapshot {}", path.display())
}
