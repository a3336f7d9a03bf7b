//! VMs that read a copy: each begins with a fork of what came last, and is replaced when more has come.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use vmcell::volume::Volume;

use super::super::apps::Host;
use super::super::roll::roll;
use super::super::volumes::Volumes;
use crate::fault::{Fault, Result};
use crate::state::{State, VolumeRow};

/// What has failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);

impl Volumes<'_> {
    /// Makes sure that there is a copy, and notes that a volume follows it.
    pub(in crate::host) fn make_follower(&self, app: &str, name: &str, source: &str) -> Result<()> {
        if self.state.replica(source, name)?.is_none() {
            let next = format!(
                "Let `replicate` of {source} name this host, and wait until `cell volumes list {source}` here shows it."
            );
            return Err(Fault::new(format!("there is no copy of the volume {name} of {source} here")).next(next));
        }
        match (self.state.volume(app, name)?, self.state.follows(app, name)?) {
            (Some(_), None) => {
                let message = format!("{app} has a volume {name} of its own, which does not follow {source}");
                return Err(Fault::new(message).next("Choose another name for the volume."));
            }
            (Some(_), Some((known, _))) if known == source => return Ok(()),
            _ => {}
        }
        self.secrets.volume_key(app, name, true)?;
        self.state.set_volume(&VolumeRow::new(app, name, 0, 0))?;
        self.state.set_follows(app, name, source, 0)
    }

    /// Forgets the volumes of an app that follow copies, which have nothing of their own.
    pub(in crate::host) fn forget_followers(&self, app: &str) -> Result<()> {
        for row in self.state.volumes(app)? {
            if self.state.follows(app, &row.name)?.is_some() {
                let _ = std::fs::remove_file(self.file(app, &row.name, row.file));
                self.secrets.forget_volume_key(app, &row.name)?;
                self.state.forget_volume(app, &row.name)?;
            }
        }
        Ok(())
    }

    /// Makes a fork of what came last, for a VM that begins; earlier ones go, although VMs may have them open still.
    pub(in crate::host) fn next_fork(&self, app: &str, name: &str, source: &str) -> Result<VolumeRow> {
        let lock = self.state.volume_lock(source, name);
        let _files = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, size) = newest(self.state, source, name)?
            .ok_or_else(|| Fault::new(format!("there is no copy of the volume {name} of {source} here")))?;
        let before = self.state.volume(app, name)?.map_or(0, |row| row.file);
        let row = VolumeRow::new(app, name, before.saturating_add(1), size);
        let new = self.file(app, name, row.file);
        let _ = std::fs::remove_file(&new);
        let (base, key) = (self.secrets.volume_key(source, name, false)?, self.secrets.volume_key(app, name, true)?);
        Volume::fork(self.file(source, name, newest), &base, &new, &key)?;
        self.state.set_volume(&row)?;
        self.state.set_follows(app, name, source, newest)?;
        let _ = std::fs::remove_file(self.file(app, name, before));
        Ok(row)
    }
}

/// Replaces VMs that follow a copy when more has come.
pub struct Follower {
    host: Arc<Host>,
    waits: BTreeMap<String, Duration>,
}

impl Follower {
    /// For the apps of this host.
    #[must_use]
    pub fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), waits: BTreeMap::new() }
    }

    /// Replaces the VMs of all apps whose copies have come further; returns once the new ones are healthy, or have failed.
    pub fn pass(&mut self, running: Duration) {
        for fleet in self.host.all_fleets() {
            let machines = fleet.machines();
            let Some(first) = machines.first() else { continue };
            let release = Arc::clone(&first.plan.release);
            let app = release.app.clone();
            let follows = release.spec.volumes.iter().filter(|mount| mount.replica_of.is_some());
            let behind: Vec<String> =
                follows.map(|mount| mount.name.clone()).filter(|name| self.is_behind(&app, name)).collect();
            if behind.is_empty() || self.waits.get(&app).is_some_and(|until| running < *until) {
                continue;
            }
            let Some(_occupied) = self.host.occupy_for_a_moment(&app) else { continue };
            let count = u32::try_from(machines.len()).unwrap_or(1);
            let began = Instant::now();
            let rolled = roll(&self.host, &fleet, &release, count, &|| Ok(()), &|_| {});
            let trouble =
                rolled.as_ref().err().map(|why| format!("its VM does not work with what has come: {}", why.message));
            for name in &behind {
                self.host.set_trouble(&app, name, "following", trouble.clone());
            }
            // The new VMs serve for as long as it took to start them, at the least.
            let took = began.elapsed();
            let wait = if rolled.is_ok() { took.saturating_mul(2) } else { took.saturating_add(AGAIN) };
            self.waits.insert(app, running.saturating_add(wait));
        }
    }

    fn is_behind(&self, app: &str, name: &str) -> bool {
        let state = &self.host.parts.state;
        let Ok(Some((source, has))) = state.follows(app, name) else { return false };
        newest(state, &source, name).is_ok_and(|newest| newest.is_some_and(|(newest, _)| newest != has))
    }
}

/// The file that nobody writes to which has the most of a volume, and the volume's size then: what came last of a copy, or else the last snapshot.
fn newest(state: &State, source: &str, name: &str) -> Result<Option<(u32, u64)>> {
    if state.replica(source, name)?.is_some() {
        return Ok(state.volume(source, name)?.map(|row| (row.file, row.size)));
    }
    let mut rows = state.snapshots(source, name)?.into_iter();
    Ok(rows.rfind(|row| !row.is_retired).map(|row| (row.file, row.size)))
}
