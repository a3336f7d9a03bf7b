//! Puts new VMs in the place of old ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::apps::Host;
use super::fleet::Fleet;
use super::keeps::Keeps;
use crate::fault::{Fault, Result};
use crate::machine::guest::{Attached, Plan};
use crate::machine::{self, Machine};
use crate::state::Release;

/// How long old VMs may take to finish what they have begun.
const DRAIN: Duration = Duration::from_secs(10);

/// Tells somebody what is being done.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Starts one VM more.
///
/// # Errors
/// There is no kernel, no number left, or no thread.
pub fn start_one(host: &Host, fleet: &Fleet, release: &Arc<Release>, fragile: bool) -> Result<Arc<Machine>> {
    let parts = &host.parts;
    let (slot, address) = fleet.free(&parts.network)?;
    let kernel = release.spec.kernel.clone().or_else(|| parts.kernel.clone());
    let kernel = kernel.ok_or_else(|| {
        Fault::new(format!("{} names no kernel, and cell serve has none", release.app))
            .next("Say `kernel = \"PATH\"`, or `cell serve --kernel PATH`.")
    })?;
    let plan = Plan {
        release: Arc::clone(release),
        slot,
        address,
        kernel,
        root: parts.folder.image(&release.image.file),
        log: parts.folder.log(&release.app, slot)?,
        volumes: release
            .spec
            .volumes
            .iter()
            .map(|mount| Attached { name: mount.name.clone(), path: mount.path.clone() })
            .collect(),
        kept: Arc::new(Keeps {
            state: Arc::clone(&parts.state),
            secrets: Arc::clone(&parts.secrets),
            release: Arc::clone(release),
        }),
        name_server: parts.network.subnet().dns().into(),
        journal: Arc::clone(&host.journal),
    };
    let machine = machine::start(plan, Arc::clone(&parts.launcher), fleet.service()?, fragile)?;
    fleet.add(Arc::clone(&machine));
    Ok(machine)
}

/// Replaces all VMs of an app by `count` new ones of this release. The old ones go on until all new ones are healthy and `commit` has succeeded;
/// if that fails, the new ones end and the old ones have never stopped.
///
/// A volume is in one VM at a time, so if there are volumes, the old ones end first, and are started again if the new ones fail.
///
/// # Errors
/// A new VM did not become healthy, or `commit` failed.
pub fn roll(
    host: &Host,
    fleet: &Fleet,
    release: &Arc<Release>,
    count: u32,
    commit: &dyn Fn() -> Result<()>,
    progress: Progress<'_>,
) -> Result<()> {
    let old = fleet.machines();
    // Of a copy that it follows, each VM has a fork of its own.
    let own = |machine: &Arc<Machine>| machine.plan.release.spec.volumes.iter().any(|mount| mount.replica_of.is_none());
    let in_place = old.iter().any(own);
    if in_place {
        retire(fleet, &old, progress);
    }
    progress(&format!("Starting {count} VM{} of release {}", if count == 1 { "" } else { "s" }, release.number));
    let mut new = Vec::new();
    if let Err(mut why) = start_all(host, fleet, release, count, &mut new, progress).and_then(|()| commit()) {
        progress("It failed; the new VMs are ended");
        fleet.end(&new);
        for machine in old.iter().filter(|_| in_place) {
            if let Err(fault) = start_one(host, fleet, &machine.plan.release, false) {
                why.message.push_str(&format!("; and the old VM does not start again: {}", fault.message));
            }
        }
        return Err(why);
    }
    new.iter().for_each(|machine| machine.admit());
    if !in_place {
        retire(fleet, &old, progress);
    }
    Ok(())
}

/// Starts VMs, and waits until all are healthy. Those that were started are in `new` whatever happens.
///
/// # Errors
/// One is not, and why.
pub fn start_all(
    host: &Host,
    fleet: &Fleet,
    release: &Arc<Release>,
    count: u32,
    new: &mut Vec<Arc<Machine>>,
    progress: Progress<'_>,
) -> Result<()> {
    for _ in 0..count {
        new.push(start_one(host, fleet, release, true)?);
    }
    // It may have been cancelled while the old VMs ended: whoever did so has not seen the new ones.
    host.parts.state.check_not_cancelled(release)?;
    for machine in new {
        machine.wait_healthy().map_err(|why| Fault::new(format!("VM {}: {}", machine.plan.slot, why.message)))?;
        progress(&format!("VM {} is healthy", machine.plan.slot));
    }
    Ok(())
}

/// Ends VMs once they have finished what they have begun, or after a while.
pub fn retire(fleet: &Fleet, machines: &[Arc<Machine>], progress: Progress<'_>) {
    if machines.is_empty() {
        return;
    }
    progress(&format!("Ending {} old VM{}", machines.len(), if machines.len() == 1 { "" } else { "s" }));
    machines.iter().for_each(|machine| machine.drain());
    let began = Instant::now();
    let is_busy = || machines.iter().any(|machine| !fleet.is_quiet(machine));
    while began.elapsed() < fleet.settle() || is_busy() && began.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(50));
    }
    fleet.end(machines);
}
