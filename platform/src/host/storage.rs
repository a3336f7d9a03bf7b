//! Changes to volumes that VMs may have.

use std::sync::Arc;

use vmcell::volume::VolumeHandle;

use super::apps::Host;
use super::roll::{Progress, retire, start_all};
use crate::fault::{Fault, Result};
use crate::machine::Counted;
use crate::state::MadeBy;

/// The handle of the VM that has a volume, if one runs. It is awake, and stays so as long as what is returned is kept.
///
/// # Errors
/// It is suspended, and cannot be woken.
fn live(host: &Host, app: &str, name: &str) -> Result<Option<(VolumeHandle, Counted)>> {
    let machines = host.fleet_named(app).map(|fleet| fleet.machines()).unwrap_or_default();
    let Some(machine) = machines.into_iter().find(|machine| machine.volume(name).is_some()) else { return Ok(None) };
    // One that sleeps would not answer.
    let counted = machine.count();
    machine.wake()?;
    Ok(machine.volume(name).map(|handle| (handle, counted)))
}

/// Takes a snapshot of a volume, while its VM runs; returns its number.
///
/// # Errors
/// The app is being changed, or those of [`Volumes::snapshot`](super::Volumes::snapshot).
pub fn snapshot(host: &Arc<Host>, app: &str, name: &str) -> Result<u32> {
    let _occupied = host.occupy(app, false)?;
    let live = live(host, app, name)?;
    host.volumes().snapshot(app, name, MadeBy::Person, live.as_ref().map(|(handle, _)| handle))
}

/// Makes a snapshot one no more. What it takes on the disk comes back once what was written after it is put together with what was before.
///
/// # Errors
/// There is no such snapshot.
pub fn remove(host: &Host, app: &str, name: &str, snapshot: u32) -> Result<()> {
    host.volumes().retire(app, name, snapshot)
}

/// Makes a volume larger, while its VM runs.
///
/// # Errors
/// The app is being changed, or those of [`Volumes::extend`](super::Volumes::extend).
pub fn extend(host: &Arc<Host>, app: &str, name: &str, size: u64) -> Result<()> {
    let _occupied = host.occupy(app, false)?;
    let live = live(host, app, name)?;
    host.volumes().extend(app, name, size, live.as_ref().map(|(handle, _)| handle))
}

/// Makes a volume of another app, or of another name, that begins as a snapshot.
///
/// # Errors
/// The other app is being changed, there is no such snapshot, the other volume is there already, or the disk is full.
pub fn fork(host: &Arc<Host>, from: (&str, &str), snapshot: u32, to: (&str, &str)) -> Result<()> {
    // Nobody else makes the same volume meanwhile.
    let _occupied = host.occupy(to.0, false)?;
    host.volumes().fork(from, snapshot, to)
}

/// Makes a volume begin as a snapshot; its VM ends before and is started afterwards. Returns the number under which what it had is kept.
///
/// # Errors
/// The app is being changed, there is no such snapshot, or the VM does not become healthy with it: then it is left as it is, to be looked at.
pub fn restore(host: &Arc<Host>, app: &str, name: &str, snapshot: u32, progress: Progress<'_>) -> Result<u32> {
    let _occupied = host.occupy(app, false)?;
    // Before its VM ends.
    host.volumes().known(app, name, snapshot)?;
    let fleet = host.parts.state.app(app).and_then(|row| host.fleet(&row)).ok();
    let old = fleet.as_ref().map(|fleet| fleet.machines()).unwrap_or_default();
    if let Some(fleet) = &fleet {
        retire(fleet, &old, progress);
    }
    let restored = host.volumes().restore(app, name, snapshot);
    if let (Some(fleet), Some(first)) = (&fleet, old.first()) {
        let mut new = Vec::new();
        let count = u32::try_from(old.len()).unwrap_or(1);
        let started = start_all(host, fleet, &first.plan.release, count, &mut new, progress);
        new.iter().for_each(|machine| machine.admit());
        if let (Ok(kept), Err(why)) = (&restored, started) {
            let next = format!("`cell volumes restore {app} {name} {kept}` goes back to what it had.");
            return Err(Fault::new(format!(
                "the volume {name} of {app} is restored, and its VM does not work with it: {}",
                why.message
            ))
            .next(next));
        }
    }
    restored
}
