//! Snapshots: one file for the machine, which is vmcell's, and one for what belongs to the API beside it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vmcell::{ForkClock, LoadMemory, SaveOptions, Snapshot, Vm};

use super::plan::Plan;
use crate::api::{
    Balloon, Drive, Entropy, MachineConfig, MemoryBackendType, MmdsConfig, NetworkInterface, SnapshotCreate,
    SnapshotLoad, SnapshotType, Vsock,
};
use crate::fault::Fault;

/// Of the file beside the machine.
pub const FORMAT: u32 = 1;
/// No such file comes near this.
const MOST_BYTES: u64 = 1 << 20;

/// What the file beside the machine holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Saved {
    vmcell_firecracker: u32,
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
    if memory == state {
        let message = format!("snapshot/create: snapshot_path and mem_file_path are both {:?}", wanted.mem_file_path);
        return Err(Fault::new(message));
    }
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
    let text = serde_json::to_string_pretty(&saved(plan)).map_err(|why| Fault::new(why.to_string()))?;
    let snapshot = vm.snapshot().map_err(refused)?;
    snapshot.save_with(memory, &options).map_err(refused)?;
    write(state, &text).map_err(|why| Fault::new(format!("snapshot/create: snapshot_path is {state:?}: {why}")))?;
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
    let mut plan = read(Path::new(&wanted.snapshot_path))?;
    replace(&mut plan, wanted)?;
    plan.machine.track_dirty_pages = wanted.track_dirty_pages || wanted.enable_diff_snapshots;
    // As the original does: the file must stay as it is while the machine runs.
    let snapshot = Snapshot::load_with(memory, LoadMemory::Map).map_err(|error| Fault::of("snapshot/load", &error))?;
    let clock = if wanted.clock_realtime { ForkClock::Jump } else { ForkClock::Keep };
    Ok((plan, snapshot, clock))
}

/// The version of the file beside a machine.
pub fn version_of(path: &Path) -> Result<u32, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Version {
        vmcell_firecracker: u32,
    }
    let version: Version = serde_json::from_str(&text_of(path)?).map_err(|why| unreadable(path, &why.to_string()))?;
    Ok(version.vmcell_firecracker)
}

fn saved(plan: &Plan) -> Saved {
    let Plan { machine, drives, nics, vsock, balloon, entropy, mmds, .. } = plan.clone();
    Saved {
        vmcell_firecracker: FORMAT,
        machine_config: machine,
        drives,
        network_interfaces: nics,
        vsock,
        balloon,
        entropy,
        mmds_config: mmds,
    }
}

fn read(path: &Path) -> Result<Plan, Fault> {
    let version = version_of(path)?;
    if version != FORMAT {
        return Err(unreadable(path, &format!("its version is {version}, allowed is {FORMAT}")));
    }
    let saved: Saved = serde_json::from_str(&text_of(path)?).map_err(|why| unreadable(path, &why.to_string()))?;
    Ok(Plan {
        machine: saved.machine_config,
        drives: saved.drives,
        nics: saved.network_interfaces,
        vsock: saved.vsock,
        balloon: saved.balloon,
        entropy: saved.entropy,
        mmds: saved.mmds_config,
        ..Plan::default()
    })
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

/// What a file is called in the folder of another one.
fn name_beside(base: &Path, other: &Path) -> Result<PathBuf, Fault> {
    let folder = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    let place = |path: &Path| {
        let folder = folder(path);
        fs::canonicalize(if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() }).ok()
    };
    match base.file_name() {
        Some(name) if place(base).is_some() && place(base) == place(other) => Ok(name.into()),
        _ => {
            let message = format!(
                "snapshot/create: mem_file_path is {other:?}; what has changed since {base:?} has to lie in the same folder"
            );
            Err(Fault::new(message))
        }
    }
}

/// Takes the place of the file by a rename, so that whoever reads it finds the old one or the new one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&part);
    }
    written
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
