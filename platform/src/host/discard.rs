//! Volumes that go for good: their files, their snapshots and their keys.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::apps::Host;
use super::volumes::Volumes;
use crate::fault::{Context, Fault, Result};
use crate::state::VolumeRow;

/// How long what comes from another host may take to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Destroys a volume, or a copy of another host's, that no app uses.
///
/// # Errors
/// There is none, an app uses it, another volume begins as a snapshot of it, or a file stays: then it is done again.
pub fn destroy_volume(host: &Arc<Host>, app: &str, name: &str) -> Result<()> {
    let _occupied = host.occupy(app, false)?;
    let (state, volumes) = (&host.parts.state, host.volumes());
    let row = volumes.row(app, name)?;
    let is_mounted = state.active(app).is_ok_and(|release| release.spec.volumes.iter().any(|mount| mount.name == name));
    let machines = host.fleet_named(app).map(|fleet| fleet.machines()).unwrap_or_default();
    if is_mounted || machines.iter().any(|machine| machine.volume(name).is_some()) {
        let next = format!("Take it out of app.toml and deploy, or `cell destroy {app} --yes {app}`, first.");
        return Err(Fault::new(format!("the app {app} uses its volume {name}")).next(next));
    }
    let _alone = host.incoming.end(app, name, LIMIT)?;
    // Nobody makes a fork of it meanwhile.
    let lock = state.volume_lock(app, name);
    let _files = lock.lock().unwrap_or_else(PoisonError::into_inner);
    volumes.is_base_of_none(&row)?;
    volumes.discard(&row)
}

impl Volumes<'_> {
    /// Refuses a volume that others begin as.
    fn is_base_of_none(&self, row: &VolumeRow) -> Result<()> {
        let all = self.state.all_volumes()?;
        for other in all.iter().filter(|other| (&other.app, &other.name) != (&row.app, &row.name)) {
            let snapshots = self.state.snapshots(&other.app, &other.name)?;
            for number in snapshots.iter().map(|snapshot| snapshot.file).chain([other.file]) {
                let base = self.base_of(&other.app, &other.name, number)?;
                if base
                    .is_some_and(|base| self.is_file_of(row, &base.file_name().unwrap_or_default().to_string_lossy()))
                {
                    let (app, name) = (&other.app, &other.name);
                    let next = format!("Destroy that one first: `cell volumes destroy {app} {name} --yes {name}`.");
                    let what =
                        format!("the volume {name} of {app} begins as a snapshot of {} of {}", row.name, row.app);
                    return Err(Fault::new(what).next(next));
                }
            }
        }
        Ok(())
    }

    /// Neither name has a dot in it.
    fn is_file_of(&self, row: &VolumeRow, file: &str) -> bool {
        file.starts_with(&format!("{}.{}.", row.app, row.name))
    }

    /// Removes the files first: if that is broken off, the volume is known still, and is destroyed once more.
    fn discard(&self, row: &VolumeRow) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder).context(self.folder.display())?.flatten() {
            if self.is_file_of(row, &entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path()).context(entry.path().display())?;
            }
        }
        self.secrets.forget_volume_key(&row.app, &row.name)?;
        self.state.forget_volume(&row.app, &row.name)
    }
}
