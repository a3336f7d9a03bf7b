//! Snapshots that are taken to be sent to another host, and what is known of the copy there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::super::apps::Host;
use super::super::schedule::Moment;
use super::send::{Sent, send};
use crate::app::{Mount, Replicate};
use crate::fault::{Context, Fault, Result};
use crate::machine::{Machine, Phase};
use crate::state::{MadeBy, TargetRow};

/// The way to other hosts.
pub trait To: Send + Sync {
    /// Opens a stream to a host that is to take a volume, whose other end that host reads.
    ///
    /// # Errors
    /// There is no such host, or it does not answer.
    fn open(&self, host: &str) -> Result<UnixStream>;
}

/// There is no way to other hosts.
#[cfg(test)]
pub struct Nowhere;

#[cfg(test)]
impl To for Nowhere {
    fn open(&self, host: &str) -> Result<UnixStream> {
        Err(Fault::new(format!("there is no host {host}"))
            .next("Let it join: `cell hosts invite` on one, and `cell join` on the other."))
    }
}

/// An app, and a volume of it.
type Named = (String, String);

/// Takes snapshots of volumes that have copies elsewhere, and sends them.
pub struct Replicator {
    host: Arc<Host>,
    to: Arc<dyn To>,
    /// When each was looked at last.
    looked: BTreeMap<Named, Duration>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Those that are being sent, each on a thread of its own.
    sending: Mutex<BTreeSet<Named>>,
    /// When the file that each volume is in was written to last, after its snapshot was taken, and whether that has all that was written.
    written: Mutex<BTreeMap<Named, (SystemTime, bool)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replicator {
    /// Sends what this host has.
    #[must_use]
    pub fn new(host: &Arc<Host>, to: Arc<dyn To>) -> Self {
        Self { host: Arc::clone(host), to, looked: BTreeMap::new(), shared: Arc::default() }
    }

    /// Begins to send all that is due at this moment, and waits for none of it.
    pub fn pass(&mut self, now: Moment) {
        let host = Arc::clone(&self.host);
        let state = &host.parts.state;
        let apps: BTreeSet<String> = state.all_volumes().unwrap_or_default().into_iter().map(|row| row.app).collect();
        for app in apps {
            let Ok(release) = state.active(&app) else { continue };
            for mount in &release.spec.volumes {
                if let Some(wanted) = &mount.replicate
                    && state.volume(&app, &mount.name).is_ok_and(|volume| volume.is_some())
                {
                    self.look(&app, mount, wanted, now);
                }
            }
        }
    }

    /// Are none being sent?
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        locked(&self.shared.sending).is_empty()
    }

    /// Whatever has become of its VM: what that wrote before it slept or ended is sent as well.
    fn look(&mut self, app: &str, mount: &Mount, wanted: &Replicate, now: Moment) {
        let named = (app.to_owned(), mount.name.clone());
        let is_due = self.looked.get(&named).is_none_or(|last| now.running.saturating_sub(*last) >= wanted.every);
        if !is_due || !locked(&self.shared.sending).insert(named.clone()) {
            return;
        }
        self.looked.insert(named.clone(), now.running);
        let one = One {
            host: Arc::clone(&self.host),
            to: Arc::clone(&self.to),
            shared: Arc::clone(&self.shared),
            wanted: wanted.clone(),
            named,
        };
        let shared = Arc::clone(&self.shared);
        let named = one.named.clone();
        let begun = std::thread::Builder::new().name("replicate".into()).spawn(move || one.run());
        if begun.is_err() {
            locked(&shared.sending).remove(&named);
        }
    }
}

/// One volume that is being sent.
struct One {
    host: Arc<Host>,
    to: Arc<dyn To>,
    shared: Arc<Shared>,
    wanted: Replicate,
    named: Named,
}

impl One {
    fn run(self) {
        let trouble = self.replicate().err().map(|why| {
            let next = why.next.map(|next| format!(" {next}")).unwrap_or_default();
            format!("it is not replicated to {}: {}{next}", self.wanted.to, why.message)
        });
        self.host.set_trouble(&self.named.0, &self.named.1, "replication", trouble);
        locked(&self.shared.sending).remove(&self.named);
    }

    fn replicate(&self) -> Result<()> {
        let (app, name) = (self.named.0.as_str(), self.named.1.as_str());
        let (state, volumes) = (&self.host.parts.state, self.host.volumes());
        let target = state.target(app, name, &self.wanted.to)?;
        if let Some(generation) = target.promoted {
            return Err(promoted(&self.wanted.to, generation));
        }
        let (taken, newest) = (self.take()?, self.newest()?);
        if newest.is_none() || (!taken && target.acknowledged == newest) {
            return Ok(());
        }
        let stream = self.to.open(&self.wanted.to)?;
        let generation = state.generation(app, name)?;
        match send(&volumes, app, name, generation, &stream)? {
            Sent::Done(newest) => {
                state.set_target(
                    app,
                    name,
                    &self.wanted.to,
                    &TargetRow { acknowledged: Some(newest), at: crate::state::now(), promoted: None },
                )?;
                self.retire_but(&[newest])
            }
            Sent::Promoted(generation) => {
                state.set_target(app, name, &self.wanted.to, &TargetRow { promoted: Some(generation), ..target })?;
                Err(promoted(&self.wanted.to, generation))
            }
        }
    }

    fn newest(&self) -> Result<Option<u32>> {
        Ok(self.host.parts.state.snapshots(&self.named.0, &self.named.1)?.last().map(|row| row.file))
    }

    /// Takes a snapshot if the volume was written to since the last one.
    fn take(&self) -> Result<bool> {
        let (app, name) = (self.named.0.as_str(), self.named.1.as_str());
        let (state, volumes) = (&self.host.parts.state, self.host.volumes());
        let written =
            |file: std::path::PathBuf| file.metadata().and_then(|found| found.modified()).context("the volume");
        let file = |number| volumes.file(app, name, number);
        let row = || state.volume(app, name)?.ok_or_else(|| Fault::new(format!("{app} has no volume {name}")));
        let before = written(file(row()?.file))?;
        let known = locked(&self.shared.written).get(&self.named).copied();
        if known.is_some_and(|(last, is_all)| last == before && is_all) {
            return Ok(false);
        }
        // Nobody starts, ends or replaces its VM meanwhile, but for one that ends by itself.
        let Some(occupied) = self.host.occupy_for_a_moment(app) else { return Ok(false) };
        let machine = self.host.fleet_named(app).and_then(|fleet| fleet.machines().into_iter().next());
        let phase = machine.as_ref().map(|machine| machine.phase());
        if phase == Some(Phase::Starting) {
            return Ok(false);
        }
        let _awake = machine.as_ref().map(Machine::count);
        if let Some(machine) = machine.as_ref().filter(|machine| machine.volume(name).is_some()) {
            // It may have written before it slept, or be about to sleep, and only a VM that is awake goes over to another file.
            machine.wake()?;
        }
        let live = machine.as_ref().and_then(|machine| machine.volume(name));
        volumes.snapshot(app, name, MadeBy::Replication, live.as_ref())?;
        drop(occupied);
        let after = written(file(row()?.file))?;
        // A VM may have written to the new file before that was looked at. If nothing comes after it, one more is taken.
        let is_all = live.is_none() || known.is_some_and(|(last, _)| last == before);
        locked(&self.shared.written).insert(self.named.clone(), (after, is_all));
        // What was not told as received is part of what is sent now.
        let acknowledged = state.target(app, name, &self.wanted.to)?.acknowledged;
        self.retire_but(&[self.newest()?, acknowledged].into_iter().flatten().collect::<Vec<_>>())?;
        Ok(true)
    }

    /// Retires the snapshots that were taken to be sent, but for some.
    fn retire_but(&self, kept: &[u32]) -> Result<()> {
        let (app, name) = (self.named.0.as_str(), self.named.1.as_str());
        let rows = self.host.parts.state.snapshots(app, name)?.into_iter();
        let over = rows.filter(|row| row.made == MadeBy::Replication && !row.is_retired && !kept.contains(&row.file));
        over.map(|row| row.file).try_for_each(|file| self.host.volumes().retire(app, name, file))
    }
}

fn promoted(host: &str, generation: u64) -> Fault {
    Fault::new(format!("the copy at {host} was promoted (generation {generation}), so this one is not the volume any more"))
        .next("What was written here since then is here alone; take `replicate` out, and destroy the app here once nobody needs it.")
}
