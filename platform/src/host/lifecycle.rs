//! Changes to apps that are there, and the start and the end of all.

use std::sync::Arc;

use super::apps::Host;
use super::roll::{Progress, retire, start_all, start_one};
use super::spread::{self, others, roll_out};
use crate::app::MOST_VMS;
use crate::fault::{Context, Fault, Result};
use crate::machine::Machine;
use crate::state::AppRow;

/// An app keeps so many releases that are over.
const KEPT_RELEASES: usize = 20;

/// Starts what should run after the process has begun anew; returns the names of the apps.
///
/// # Errors
/// Those of the database. An app that cannot be started is told of, as are rules that the network refuses, and the others start.
pub fn resume(host: &Host, progress: Progress<'_>) -> Result<Vec<String>> {
    let state = &host.parts.state;
    state.fail_interrupted()?;
    host.parts.folder.tidy();
    let tell = |app: &str, fault: &Fault| progress(&format!("{app}: {fault}"));
    for row in state.apps()? {
        if state.releases(Some(&row.name))?.is_empty() {
            // The process ended while it was destroyed.
            finish(host, &row.name).unwrap_or_else(|fault| tell(&row.name, &fault));
        }
    }
    // Without rules, nothing passes between apps, and what runs can be looked at and destroyed.
    host.set_rules().unwrap_or_else(|fault| tell("the network", &fault));
    let mut started = Vec::new();
    for row in state.apps()?.into_iter().filter(|row| row.active.is_some()) {
        match start_app(host, &row, progress) {
            Ok(()) => started.push(row.name),
            Err(fault) => tell(&row.name, &fault),
        }
    }
    host.sweep()?;
    Ok(started)
}

fn start_app(host: &Host, row: &AppRow, progress: Progress<'_>) -> Result<()> {
    let release = Arc::new(host.parts.state.active(&row.name)?);
    let fleet = host.fleet(row)?;
    for _ in 0..row.count {
        if let Err(fault) = start_one(host, &fleet, &release, false) {
            progress(&format!("{}: {fault}", row.name));
        }
    }
    Ok(())
}

/// Sets how many VMs of an app run. New ones are healthy when this returns.
///
/// # Errors
/// More than allowed are asked for, the app is being changed, or a new VM does not become healthy.
pub fn scale(host: &Arc<Host>, app: &str, count: u32, progress: Progress<'_>) -> Result<()> {
    if count > MOST_VMS {
        return Err(Fault::new(format!("{count} VMs; allowed are 0 to {MOST_VMS}")));
    }
    let _occupied = host.occupy(app, false)?;
    host.check_owner(app)?;
    let release = Arc::new(host.parts.state.active(app)?);
    if release.spec.hosts.is_some() {
        return Err(Fault::new(format!("{app} says how many VMs run where"))
            .next("Change `hosts` in its app.toml, and deploy that."));
    }
    if count > 1 && !release.spec.volumes.is_empty() {
        return Err(Fault::new(format!(
            "{count} VMs of {app}, which has volumes: a volume is in one VM at a time, so allowed are 0 and 1"
        )));
    }
    let fleet = host.fleet(&host.parts.state.app(app)?)?;
    let machines = fleet.machines();
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut new: Vec<Arc<Machine>> = Vec::new();
    let more = count.saturating_sub(u32::try_from(machines.len()).unwrap_or(u32::MAX));
    let grown = start_all(host, &fleet, &release, more, &mut new, progress)
        .and_then(|()| host.parts.state.set_count(app, count));
    if let Err(why) = grown {
        fleet.end(&new);
        return Err(Fault::new(format!("{app} stays at {} VMs: {}", machines.len(), why.message)));
    }
    new.iter().for_each(|machine| machine.admit());
    retire(&fleet, machines.get(wanted..).unwrap_or_default(), progress);
    Ok(())
}

/// Replaces all VMs of an app by new ones of the same release, but not those at these hosts.
///
/// # Errors
/// The app is being changed, or a new VM does not become healthy; the old ones go on then.
pub fn restart(host: &Arc<Host>, app: &str, without: &[String], progress: Progress<'_>) -> Result<()> {
    let _occupied = host.occupy(app, false)?;
    host.check_owner(app)?;
    let release = Arc::new(host.parts.state.active(app)?);
    host.check_hosts(&release.spec, without)?;
    let row = host.parts.state.app(app)?;
    roll_out(host, &row, &release, (row.count, without), &|| Ok(()), progress)
}

/// Ends an app at all hosts and forgets it, with its secrets and logs. Its volumes stay, for an app of the same name, but for those that follow a copy.
///
/// # Errors
/// There is no such app, it is another host's, or it is being changed.
pub fn destroy(host: &Arc<Host>, app: &str, progress: Progress<'_>) -> Result<()> {
    host.check_owner(app)?;
    let row = host.parts.state.app(app)?;
    let spec = host.parts.state.active(app).ok().map(|release| release.spec);
    let others: Vec<_> = spec.iter().flat_map(|spec| others(host, spec)).map(|(member, _)| member).collect();
    end(host, app, progress)?;
    spread::end(host, &row, &others, progress);
    for volume in host.parts.state.volumes(app)?.into_iter().map(|row| row.name) {
        progress(&format!(
            "The volume {volume} stays; `cell volumes destroy {app} {volume} --yes {volume}` removes it"
        ));
    }
    Ok(())
}

/// Ends an app here and forgets it, whosever it is.
///
/// # Errors
/// There is no such app, or it is being changed.
pub(super) fn end(host: &Arc<Host>, app: &str, progress: Progress<'_>) -> Result<()> {
    let _occupied = host.occupy(app, false)?;
    host.parts.state.app(app)?;
    // First, so that a process that begins anew does not start them, and goes on with this instead.
    host.parts.state.forget_releases(app)?;
    // If they are refused, it is said in the end.
    let _ = host.set_rules();
    if let Some(fleet) = host.fleet_named(app) {
        retire(&fleet, &fleet.machines(), progress);
    }
    finish(host, app)?;
    host.sweep()
}

/// Forgets an app that has neither releases nor VMs. Its number is free last, once nothing has an address that follows from it.
fn finish(host: &Host, app: &str) -> Result<()> {
    host.parts.secrets.forget(app)?;
    let logs = host.parts.folder.logs(app);
    if logs.exists() {
        std::fs::remove_dir_all(&logs).context(logs.display())?;
    }
    host.volumes().forget_followers(app)?;
    host.forget(app);
    host.parts.state.remove(app)?;
    host.set_rules()
}

/// Ends all VMs, each by its command, side by side.
pub fn shut_down(host: &Host) {
    let fleets = host.all_fleets();
    std::thread::scope(|scope| {
        for fleet in &fleets {
            scope.spawn(|| fleet.end(&fleet.machines()));
        }
    });
}

impl Host {
    /// Forgets releases that are long over, and removes the files of images that no release has.
    ///
    /// # Errors
    /// Those of the database and the folder.
    pub(super) fn sweep(&self) -> Result<()> {
        let _images = self.images();
        let state = &self.parts.state;
        for row in state.apps()? {
            for old in
                state.releases(Some(&row.name))?.iter().skip(KEPT_RELEASES).filter(|old| Some(old.number) != row.active)
            {
                state.forget_release(old)?;
            }
        }
        let kept: std::collections::BTreeSet<String> =
            state.releases(None)?.into_iter().map(|release| release.image.file).collect();
        let folder = self.parts.folder.image("");
        for entry in std::fs::read_dir(&folder).context(folder.display())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".erofs") && !kept.contains(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}
