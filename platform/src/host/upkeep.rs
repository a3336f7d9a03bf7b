//! What is done to volumes by the clock: snapshots are taken, and those that are over are removed.
//!
//! Several threads, so that a snapshot is taken in time while the data of another one are moved, which may take long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vmcell::ErrorKind;

use super::apps::Host;
use super::replica::{Follower, Replicator, To, sweep};
use super::schedule::{Moment, expired, is_due};
use super::tidying::Step;
use crate::app::{Mount, Snapshots};
use crate::fault::{Context, Fault, Result};
use crate::machine::{Machine, Phase};
use crate::state::MadeBy;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Between two steps of tidying: a VM that starts has opened all of its files by then, so that none goes before its eyes.
const STEP: Duration = Duration::from_millis(500);
/// What has failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// Where there was nothing to do, it is looked again after so long.
const LATER: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_hours(1);
/// How long a VM may take to go over to other files.
const LIMIT: Duration = Duration::from_secs(30);

/// An app, and a volume of it.
type Named = (String, String);

/// The threads, which end when this is dropped.
pub struct Upkeep {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    is_over: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Stop {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Waits for so long; false if it is over.
    fn wait(&self, time: Duration) -> bool {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(lock, time, |()| !self.is_over());
        !self.is_over()
    }
}

impl Upkeep {
    /// Begins, for a host that has started what should run.
    ///
    /// # Errors
    /// The host starts no thread.
    pub fn start(host: &Arc<Host>, to: Arc<dyn To>) -> Result<Self> {
        let (stop, began) = (Arc::<Stop>::default(), Instant::now());
        let mut taker = Taker::new(host);
        let takes = Arc::clone(&stop);
        let taking = spawn("snapshots", move || {
            while takes.wait(LOOK) {
                taker.pass(now(began));
            }
        });
        let mut upkeep = Self { stop: Arc::clone(&stop), threads: vec![taking?] };
        let (mut replicator, sends) = (Replicator::new(host, to), Arc::clone(&stop));
        upkeep.threads.push(spawn("replication", move || {
            while sends.wait(LOOK) {
                replicator.pass(now(began));
            }
        })?);
        let (mut follower, follows) = (Follower::new(host), Arc::clone(&stop));
        upkeep.threads.push(spawn("replicas", move || {
            while follows.wait(LOOK) {
                follower.pass(began.elapsed());
            }
        })?);
        let mut tidier = Tidier::new(host);
        let tidying = spawn("tidying", move || {
            // Now, and each hour again.
            let mut next = Duration::ZERO;
            while stop.wait(STEP) {
                if began.elapsed() >= next {
                    sweep(&tidier.host);
                    next = began.elapsed().saturating_add(HOUR);
                }
                tidier.pass(began.elapsed(), &|| !stop.is_over());
            }
        });
        upkeep.threads.push(tidying?);
        Ok(upkeep)
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.is_over.store(true, Ordering::SeqCst);
        drop(self.stop.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.stop.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work).context("a thread")
}

fn now(began: Instant) -> Moment {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Moment { wall, running: began.elapsed() }
}

/// Takes snapshots that are due.
pub(super) struct Taker {
    host: Arc<Host>,
    /// When one was taken by this process.
    taken: BTreeMap<Named, Duration>,
    /// Those that failed, and when they are tried again.
    waits: BTreeMap<Named, Duration>,
}

impl Taker {
    pub(super) fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), taken: BTreeMap::new(), waits: BTreeMap::new() }
    }

    /// Takes all that are due at this moment, and retires those that are over.
    pub(super) fn pass(&mut self, now: Moment) {
        for fleet in self.host.all_fleets() {
            for machine in fleet.machines() {
                let release = &machine.plan.release;
                for mount in &release.spec.volumes {
                    if let Some(wanted) = mount.snapshots {
                        self.look(&machine, mount, wanted, now);
                    }
                }
            }
        }
    }

    fn look(&mut self, machine: &Arc<Machine>, mount: &Mount, wanted: Snapshots, now: Moment) {
        let named = (machine.plan.release.app.clone(), mount.name.clone());
        if self.waits.get(&named).is_some_and(|until| now.running < *until) {
            return;
        }
        let (app, volume) = (&named.0, &named.1);
        match self.take(machine, &named, wanted, now) {
            Ok(()) => {
                if self.waits.remove(&named).is_some() {
                    self.host.set_trouble(app, volume, "snapshots", None);
                }
            }
            Err(why) => {
                let what = format!("no snapshot was taken: {}", why.message);
                self.host.set_trouble(app, volume, "snapshots", Some(what));
                self.waits.insert(named, now.running.saturating_add(AGAIN));
            }
        }
    }

    fn take(&mut self, machine: &Arc<Machine>, named: &Named, wanted: Snapshots, now: Moment) -> Result<()> {
        let (app, volume) = (named.0.as_str(), named.1.as_str());
        let last = self.by_clock(app, volume)?.last().map(|(_, created)| *created);
        // One that sleeps writes nothing, and is not woken for this.
        let runs = matches!(machine.phase(), Phase::Healthy | Phase::Unhealthy(_));
        if runs && is_due(wanted, last, self.taken.get(named).copied(), now) {
            let Some(_occupied) = self.host.occupy_for_a_moment(app) else { return Ok(()) };
            let _awake = machine.count();
            // It may be about to sleep at this moment.
            machine.wake()?;
            let live = machine.volume(volume);
            let snapshot = self.host.volumes().snapshot(app, volume, MadeBy::Clock, live.as_ref())?;
            self.taken.insert(named.clone(), now.running);
            self.host.parts.state.snapshot_dated(app, volume, snapshot, now.wall)?;
        }
        for over in expired(wanted, &self.by_clock(app, volume)?, now) {
            self.host.volumes().retire(app, volume, over)?;
        }
        Ok(())
    }

    /// The snapshots that were made by the clock, the oldest first, and when.
    fn by_clock(&self, app: &str, volume: &str) -> Result<Vec<(u32, u64)>> {
        let rows = self.host.parts.state.snapshots(app, volume)?.into_iter();
        let made = rows.filter(|row| row.made == MadeBy::Clock && !row.is_retired);
        Ok(made.map(|row| (row.file, row.created)).collect())
    }
}

/// Removes the files of snapshots that are over.
pub(super) struct Tidier {
    host: Arc<Host>,
    /// Volumes whose VM has files open that are there no longer.
    stale: BTreeSet<Named>,
    waits: BTreeMap<Named, Duration>,
}

impl Tidier {
    pub(super) fn new(host: &Arc<Host>) -> Self {
        Self { host: Arc::clone(host), stale: BTreeSet::new(), waits: BTreeMap::new() }
    }

    /// Does a step for each volume that has such files. The same process never begins two at once.
    pub(super) fn pass(&mut self, running: Duration, goes_on: &dyn Fn() -> bool) {
        let untidy = self.host.parts.state.untidy_volumes().unwrap_or_default();
        let all: BTreeSet<Named> = untidy.into_iter().chain(self.stale.iter().cloned()).collect();
        for named in all {
            if !goes_on() {
                return;
            }
            if self.waits.get(&named).is_some_and(|until| running < *until) {
                continue;
            }
            let (app, volume) = (&named.0, &named.1);
            match self.step(&named, running, goes_on) {
                Ok(()) => self.host.set_trouble(app, volume, "tidying", None),
                Err(why) => {
                    let what = format!("a snapshot that is over takes space still: {}", why.message);
                    self.host.set_trouble(app, volume, "tidying", Some(what));
                    self.waits.insert(named, running.saturating_add(AGAIN));
                }
            }
        }
    }

    fn step(&mut self, named: &Named, running: Duration, goes_on: &dyn Fn() -> bool) -> Result<()> {
        let (app, volume) = (named.0.as_str(), named.1.as_str());
        match self.host.volumes().tidy(app, volume, goes_on)? {
            // To look at all files takes its time.
            Step::Nothing => _ = self.waits.insert(named.clone(), running.saturating_add(LATER)),
            Step::Absorbed | Step::Removed => {
                self.stale.insert(named.clone());
            }
        }
        if self.stale.contains(named) && self.reopen(app, volume)? {
            self.stale.remove(named);
        }
        Ok(())
    }

    /// Has the VM of a volume go over to the files that are there now; false if it sleeps, or is being changed.
    fn reopen(&self, app: &str, volume: &str) -> Result<bool> {
        // One change of a volume in use at a time.
        let Some(_occupied) = self.host.occupy_for_a_moment(app) else { return Ok(false) };
        let machines = self.host.fleet_named(app).map(|fleet| fleet.machines()).unwrap_or_default();
        for machine in machines {
            let Some(handle) = machine.volume(volume) else { continue };
            if machine.phase() == Phase::Suspended {
                return Ok(false);
            }
            let _awake = machine.count();
            match handle.reopen(LIMIT) {
                Ok(()) => {}
                // What it wrote before its last snapshot is not stable yet, or it has ended.
                Err(why) if why.kind() == ErrorKind::InvalidState => return Ok(false),
                Err(why) => {
                    let why = Fault::from(why).message;
                    return Err(Fault::new(format!("its VM does not go over to the files that are there now: {why}")));
                }
            }
        }
        Ok(true)
    }
}
