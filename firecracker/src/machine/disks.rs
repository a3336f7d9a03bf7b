//! From drives to disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use vmcell::{Disk, DiskConfig, Engine, Vm};

use super::limits::limits;
use super::plan::{File, Plan};
use crate::api::{Drive, DriveUpdate, IoEngine};
use crate::fault::Fault;

/// How long an exchange waits for requests in flight.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// The longest serial number, in bytes.
const MOST_SERIAL: usize = 20;

/// The disk of a drive, which is opened when the machine is built.
pub fn disk(drive: &Drive) -> Result<DiskConfig, Fault> {
    let what = format!("drive {}", drive.drive_id);
    if drive.socket.is_some() {
        return Err(Fault::not_there(&what, "vmcell has no vhost-user backends; name a file by path_on_host"));
    }
    let Some(path) = &drive.path_on_host else {
        return Err(Fault::new(format!("{what}: path_on_host is missing")));
    };
    let engine = match drive.io_engine {
        None => Engine::Auto,
        Some(IoEngine::Sync) => Engine::Sync,
        Some(IoEngine::Async) => Engine::Uring,
    };
    let id = drive.drive_id.as_str();
    let serial = if id.len() <= MOST_SERIAL && id.is_ascii() { id } else { "" };
    let limits = limits(&what, drive.rate_limiter.as_ref())?;
    Ok(DiskConfig::new(path).read_only(drive.is_read_only()).engine(engine).serial(serial).limits(limits))
}

/// Opens a drive once to see whether it can be; as clients are told of it.
pub fn checked(mut drive: Drive) -> Result<Drive, Fault> {
    let what = format!("drive {}", drive.drive_id);
    Disk::from_config(&disk(&drive)?).map_err(|error| Fault::of(&what, &error))?;
    if let Some(partuuid) = drive.partuuid.as_deref().filter(|text| !text.bytes().all(is_of_uuid)) {
        let message = format!("{what}: partuuid is {partuuid:?}, allowed are letters, digits and hyphens");
        return Err(Fault::new(message));
    }
    drive.is_read_only = Some(drive.is_read_only());
    drive.rate_limiter = drive.rate_limiter.and_then(|limiter| limiter.effective());
    Ok(drive)
}

/// It becomes a word of the kernel's command line.
fn is_of_uuid(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Changes a disk of a machine that runs: first its file, then its limits.
pub fn change(vm: &Vm, plan: &mut Plan, update: &DriveUpdate) -> Result<(), Fault> {
    let what = format!("drive {}", update.drive_id);
    let at = plan.drives.iter().position(|drive| drive.drive_id == update.drive_id);
    let Some((at, drive)) = at.and_then(|at| Some((at, plan.drives.get_mut(at)?))) else {
        return Err(Fault::new(format!("{what}: there is no such drive")));
    };
    let refused = |error: vmcell::Error| Fault::of(&what, &error);
    if update.path_on_host.is_none() && update.rate_limiter.is_none() {
        return Err(Fault::new(format!("{what}: path_on_host or rate_limiter is needed")));
    }
    let handle = vm.disk_handle(at).map_err(refused)?;
    let mut changed = drive.clone();
    if let Some(limiter) = &update.rate_limiter {
        changed.rate_limiter = drive.rate_limiter.unwrap_or_default().updated(limiter).effective();
    }
    // Refused before anything has changed.
    let new_limits = limits(&what, changed.rate_limiter.as_ref())?;
    if let Some(path) = &update.path_on_host {
        let (present, wanted) = (plan.files.get_mut(at), file_at(path));
        let is_same = wanted.is_some() && present.as_deref() == Some(&wanted);
        changed.path_on_host = Some(path.clone());
        if is_same {
            handle.refresh();
        } else {
            let new = Disk::from_config(&disk(&changed)?).map_err(refused)?;
            handle.replace(new, EXCHANGE_LIMIT).map_err(refused)?;
            present.into_iter().for_each(|present| *present = wanted);
        }
        drive.path_on_host.clone_from(&changed.path_on_host);
    }
    if update.rate_limiter.is_some() {
        handle.set_limits(new_limits).map_err(refused)?;
    }
    *drive = changed;
    Ok(())
}

/// Which files the drives are, since another file may get the name of one while the guest runs.
pub fn files(drives: &[Drive]) -> Vec<Option<File>> {
    drives.iter().map(|drive| file_at(drive.path_on_host.as_deref()?)).collect()
}

fn file_at(path: &str) -> Option<File> {
    fs::metadata(path).ok().map(|found| File { device: found.dev(), inode: found.ino() })
}
