//! Snapshots: one file for the machine, which is vmcell's, and one for what belongs to the API beside it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmcell::{ForkClock, LoadMemory, SaveOptions, Snapshot, Vm};

use super::plan::Plan;
use super::same;
use crate::api::{
    Balloon, Drive, Entropy, MachineConfig, MemoryBackendType, MmdsConfig, NetworkInterface, SnapshotCreate,
    SnapshotLoad, SnapshotType, Vsock,
};
use crate::fault::Fault;

/// Of the file beside the machine.
pub const FORMAT: u32 = 1;
/// No such file comes near this.
const MOST_BYTES: u64 = 1 << 20;

/// Where the header of a machine's file has its checksum.
const CHECKSUM_AT: u64 = 12;

/// What the file beside the machine holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Saved {
    vmcell_firecracker: u32,
    /// Of the file of the machine, to tell it from that of another one.
    memory_checksum: u32,
    machine_config: MachineConfig,
    drives: Vec<Drive>,
    network_interfaces: Vec<NetworkInterface>,
    vsock: Option<Vsock>,
    balloon: Option<Balloon>,
    entropy: Option<Entropy>,
    mmds_config: Option<MmdsConfig>,
}

/// The last one that was taken, on which the next may build.
pub struct Last {
    snapshot: Snapshot,
    path: PathBuf,
}

/// Saves a machine that is paused. Returns what the next snapshot may build on.
pub fn create(vm: &Vm, plan: &Plan, last: Option<&Last>, wanted: &SnapshotCreate) -> Result<Option<Last>, Fault> {
    let refused = |error: vmcell::Error| Fault::of("snapshot/create", &error);
    let (memory, state) = (Path::new(&wanted.mem_file_path), Path::new(&wanted.snapshot_path));
    check_places(state, memory)?;
    let is_tracked = plan.machine.track_dirty_pages;
    let base = match wanted.snapshot_type {
        SnapshotType::Full => None,
        SnapshotType::Diff if !is_tracked => {
            return Err(Fault::new("snapshot/create: snapshot_type is Diff, and track_dirty_pages is false"));
        }
        SnapshotType::Diff => last,
    };
    let mut options = SaveOptions::new();
    if let Some(base) = base {
        let name = name_beside(&base.path, memory)?;
        options = options.since(&base.snapshot, name);
    }
    // Whoever may not write it is told before the machine is copied.
    let unwritten = |why: io::Error| Fault::new(format!("snapshot/create: snapshot_path is {state:?}: {why}"));
    let part = Part::new(state).map_err(unwritten)?;
    let snapshot = vm.snapshot().map_err(refused)?;
    snapshot.save_with(memory, &options).map_err(refused)?;
    let checksum = checksum_of(memory).map_err(|why| Fault::new(format!("snapshot/create: {memory:?}: {why}")))?;
    let text = serde_json::to_string_pretty(&saved(plan, checksum)).map_err(|why| Fault::new(why.to_string()))?;
    part.put_in_place(state, &text).map_err(unwritten)?;
    Ok(is_tracked.then(|| Last { snapshot, path: memory.to_owned() }))
}

/// What a snapshot says of its machine, with the overrides, and the machine.
pub fn load(wanted: &SnapshotLoad) -> Result<(Plan, Snapshot, ForkClock), Fault> {
    let memory = match (&wanted.mem_backend, &wanted.mem_file_path) {
        (Some(backend), _) if backend.backend_type == MemoryBackendType::Uffd => {
            let why = "memory is read from a file, page by page as it is used; set backend_type to File";
            return Err(Fault::not_there("Uffd", why));
        }
        (Some(backend), _) => &backend.backend_path,
        (None, Some(path)) => path,
        (None, None) => return Err(Fault::new("snapshot/load: mem_backend is missing")),
    };
    let (mut plan, checksum) = read(Path::new(&wanted.snapshot_path))?;
    replace(&mut plan, wanted)?;
    plan.machine.track_dirty_pages = wanted.track_dirty_pages || wanted.enable_diff_snapshots;
    // As the original does: the file must stay as it is while the machine runs.
    let snapshot = Snapshot::load_with(memory, LoadMemory::Map).map_err(|error| Fault::of("snapshot/load", &error))?;
    if checksum_of(Path::new(memory)).ok() != Some(checksum) {
        let message =
            format!("snapshot/load: {memory:?} is not the machine that {:?} was written with", wanted.snapshot_path);
        return Err(Fault::new(message));
    }
    let changed = |fault: Fault| unreadable(Path::new(&wanted.snapshot_path), fault.message());
    same::check(&plan, snapshot.config()).map_err(changed)?;
    let clock = if wanted.clock_realtime { ForkClock::Jump } else { ForkClock::Keep };
    Ok((plan, snapshot, clock))
}

/// The version of the file beside a machine.
pub fn version_of(path: &Path) -> Result<u32, Fault> {
    version_in(path, &text_of(path)?)
}

/// The same, of the text of the file.
fn version_in(path: &Path, text: &str) -> Result<u32, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Version {
        vmcell_firecracker: u32,
    }
    let version: Version = serde_json::from_str(text).map_err(|why| unreadable(path, &why.to_string()))?;
    Ok(version.vmcell_firecracker)
}

fn saved(plan: &Plan, memory_checksum: u32) -> Saved {
    let Plan { machine, drives, nics, vsock, balloon, entropy, mmds, .. } = plan.clone();
    Saved {
        vmcell_firecracker: FORMAT,
        memory_checksum,
        machine_config: machine,
        drives,
        network_interfaces: nics,
        vsock,
        balloon,
        entropy,
        mmds_config: mmds,
    }
}

fn read(path: &Path) -> Result<(Plan, u32), Fault> {
    let text = text_of(path)?;
    let version = version_in(path, &text)?;
    if version != FORMAT {
        return Err(unreadable(path, &format!("its version is {version}, allowed is {FORMAT}")));
    }
    let saved: Saved = serde_json::from_str(&text).map_err(|why| unreadable(path, &why.to_string()))?;
    let plan = Plan {
        machine: saved.machine_config,
        drives: saved.drives,
        nics: saved.network_interfaces,
        vsock: saved.vsock,
        balloon: saved.balloon,
        entropy: saved.entropy,
        mmds: saved.mmds_config,
        ..Plan::default()
    };
    Ok((plan, saved.memory_checksum))
}

/// What the header of the file of a machine says of all that is behind it (`docs/snapshot.md`).
fn checksum_of(path: &Path) -> io::Result<u32> {
    let mut bytes = [0; 4];
    File::open(path)?.read_exact_at(&mut bytes, CHECKSUM_AT)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Puts what the machine has on this host in the place of what it had.
fn replace(plan: &mut Plan, wanted: &SnapshotLoad) -> Result<(), Fault> {
    let missing = |what: &str, id: &str| Err(Fault::new(format!("snapshot/load: there is no {what} {id}")));
    for other in &wanted.network_overrides {
        match plan.nics.iter_mut().find(|nic| nic.iface_id == other.iface_id) {
            Some(nic) => nic.host_dev_name.clone_from(&other.host_dev_name),
            None => return missing("network interface", &other.iface_id),
        }
    }
    for other in &wanted.drive_overrides {
        match plan.drives.iter_mut().find(|drive| drive.drive_id == other.drive_id) {
            Some(drive) => drive.path_on_host = Some(other.path_on_host.clone()),
            None => return missing("drive", &other.drive_id),
        }
    }
    match (&mut plan.vsock, &wanted.vsock_override) {
        (Some(vsock), Some(other)) => vsock.uds_path.clone_from(&other.uds_path),
        (None, Some(_)) => return missing("vsock", "to override"),
        (_, None) => {}
    }
    Ok(())
}

/// Refuses what a snapshot would take the place of: all but files, and the one by the other.
fn check_places(state: &Path, memory: &Path) -> Result<(), Fault> {
    for (what, path) in [("snapshot_path", state), ("mem_file_path", memory)] {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(Fault::new(format!("snapshot/create: {what} is {path:?}: there is something that is no file")));
        }
    }
    if state.file_name() == memory.file_name() && folder_of(state) == folder_of(memory) {
        let message = format!("snapshot/create: snapshot_path is {state:?} and mem_file_path is {memory:?}, the same");
        return Err(Fault::new(message));
    }
    Ok(())
}

/// What a file is called in the folder of another one.
fn name_beside(base: &Path, other: &Path) -> Result<PathBuf, Fault> {
    match base.file_name() {
        Some(name) if folder_of(base).is_some() && folder_of(base) == folder_of(other) => Ok(name.into()),
        _ => {
            let message = format!(
                "snapshot/create: mem_file_path is {other:?}; what has changed since {base:?} has to lie in the same folder"
            );
            Err(Fault::new(message))
        }
    }
}

/// The folder of a file, by the one name that it always has; `None` if it is not there.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()
}

/// A file that takes its place by a rename, so that whoever reads it finds the old one or the new one. It is gone if it is dropped before.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn new(place: &Path) -> io::Result<Self> {
        let mut name = place.file_name().ok_or(io::ErrorKind::NotFound)?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = place.with_file_name(name);
        // A program that had this number may have left it; whatever else is there is not opened.
        let _ = fs::remove_file(&path);
        File::create_new(&path).map(|file| Self { path, file })
    }

    fn put_in_place(mut self, place: &Path, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.path, place)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.path);
    }
}

fn text_of(path: &Path) -> Result<String, Fault> {
    let mut text = String::new();
    // A named pipe would not be opened before somebody writes to it.
    let is_file = fs::metadata(path).map_err(|why| unreadable(path, &why.to_string()))?.is_file();
    if !is_file {
        return Err(unreadable(path, "it is no file"));
    }
    let file = File::open(path).map_err(|why| unreadable(path, &why.to_string()))?;
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(|why| unreadable(path, &why.to_string()))?;
    Ok(text)
}

fn unreadable(path: &Path, why: &str) -> Fault {
    Fault::new(format!("snapshot/load: snapshot_path is {path:?}: {why}"))
}
