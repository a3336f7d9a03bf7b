//! A VM of an app: what has become of it, and what may be asked of it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vmcell::network::Service;
use vmcell::volume::VolumeHandle;

use super::guest::{Guest, Plan, Usage, forward};
use super::phase::Phase;
use super::timed::Timed;
use crate::fault::{Fault, Result};
use crate::guest::{FORWARD_PORT, Message, Stop};

/// How long a guest may take to read that it is to stop.
const TOLD: Duration = Duration::from_secs(1);
/// After so long, a guest that is still being suspended is told to go on once more.
const AGAIN: Duration = Duration::from_millis(20);

/// A VM of an app.
pub struct Machine {
    /// What it is made of.
    pub plan: Plan,
    inner: Mutex<Inner>,
    pub(super) changed: Condvar,
    connections: AtomicUsize,
}

pub(super) struct Inner {
    pub(super) phase: Phase,
    /// The address that stands for its app, until it has ended for good: then the address is free.
    service: Option<Service>,
    /// Its guest is being suspended or woken, by a thread that does not keep the lock meanwhile.
    turning: bool,
    /// Somebody has broken off that it is suspended.
    wanted: bool,
    pub(super) guest: Option<Arc<dyn Guest>>,
    /// Where the guest is told to stop.
    pub(super) control: Option<UnixStream>,
    pub(super) stop: bool,
    /// Whether it may have traffic.
    pub(super) admitted: bool,
    pub(super) restarts: u32,
    pub(super) since: Instant,
    /// When a client's connection last began or ended.
    pub(super) used: Instant,
}

/// What is told of a VM.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its number in its app.
    pub vm: u32,
    /// The release that it runs.
    pub release: u32,
    /// Its address in the private network.
    pub address: String,
    /// What has become of it.
    #[serde(flatten)]
    pub phase: Phase,
    /// How often it was started again.
    pub restarts: u32,
    /// Since when its phase is this one, in seconds.
    pub seconds: u64,
}

impl Machine {
    /// A VM that is about to be started; if `fragile`, it gets no traffic until it is admitted.
    pub(super) fn new(plan: Plan, service: Service, fragile: bool) -> Self {
        let inner = Inner {
            phase: Phase::Starting,
            service: Some(service),
            turning: false,
            wanted: false,
            guest: None,
            control: None,
            stop: false,
            admitted: !fragile,
            restarts: 0,
            since: Instant::now(),
            used: Instant::now(),
        };
        Self { plan, inner: Mutex::new(inner), changed: Condvar::new(), connections: AtomicUsize::new(0) }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, phase: Phase) {
        let mut inner = self.inner();
        self.enter(&mut inner, phase);
        self.traffic(&inner);
        if matches!(inner.phase, Phase::Stopped | Phase::Failed(_)) {
            inner.service = None;
        }
        self.changed.notify_all();
    }

    fn enter(&self, inner: &mut Inner, phase: Phase) {
        if inner.phase != phase {
            self.plan.journal.add(&self.plan.release.app, self.plan.slot, self.plan.release.number, &phase);
            (inner.phase, inner.since) = (phase, Instant::now());
        }
    }

    /// It has ended, and no flow leads to it any more.
    pub(super) fn leave(&self) {
        if let Some(service) = &self.inner().service {
            service.remove(self.plan.address);
        }
    }

    /// Its checks have passed once more, unless it was suspended meanwhile.
    pub(super) fn set_checked(&self) {
        if self.phase() != Phase::Suspended {
            self.set(Phase::Healthy);
        }
    }

    /// For how long no client was connected.
    pub(super) fn unused(&self) -> Duration {
        if self.connections.load(Ordering::SeqCst) > 0 { Duration::ZERO } else { self.inner().used.elapsed() }
    }

    /// It is started once more.
    pub(super) fn again(&self) {
        let mut inner = self.inner();
        inner.restarts = inner.restarts.saturating_add(1);
        drop(inner);
        self.set(Phase::Starting);
    }

    /// Lets it have traffic if it may. The lock is kept, so that what is said last holds.
    fn traffic(&self, inner: &Inner) {
        let Some(service) = &inner.service else { return };
        if inner.admitted && matches!(inner.phase, Phase::Healthy | Phase::Suspended) {
            // Only what is no address of the network is refused.
            let _ = service.add(self.plan.address);
        } else {
            service.drain(self.plan.address);
        }
    }

    /// Lets it have traffic from now on.
    pub fn admit(&self) {
        let mut inner = self.inner();
        inner.admitted = true;
        self.traffic(&inner);
    }

    /// Lets it have no new traffic.
    pub fn drain(&self) {
        let mut inner = self.inner();
        inner.admitted = false;
        self.traffic(&inner);
    }

    /// Connections that it has from clients.
    #[must_use]
    pub fn busy(&self) -> usize {
        let members = self.inner().service.as_ref().map(Service::members).unwrap_or_default();
        let flows = members.iter().find(|member| member.machine == self.plan.address).map_or(0, |member| member.flows);
        self.connections.load(Ordering::SeqCst).saturating_add(flows)
    }

    /// May it have a new connection?
    #[must_use]
    pub fn takes_traffic(&self) -> bool {
        let inner = self.inner();
        inner.admitted && matches!(inner.phase, Phase::Healthy | Phase::Suspended)
    }

    /// What has become of it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inner().phase.clone()
    }

    /// What is told of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let inner = self.inner();
        Report {
            vm: self.plan.slot,
            release: self.plan.release.number,
            address: self.plan.address.ip().to_string(),
            phase: inner.phase.clone(),
            restarts: inner.restarts,
            seconds: inner.since.elapsed().as_secs(),
        }
    }

    /// Waits until its checks pass.
    ///
    /// # Errors
    /// It ended, was told to, or they did not pass; why is said.
    pub fn wait_healthy(&self) -> Result<()> {
        let mut inner = self.inner();
        loop {
            match &inner.phase {
                Phase::Healthy | Phase::Suspended => return Ok(()),
                Phase::Failed(why) | Phase::Waiting(why) => return Err(Fault::new(why.clone())),
                Phase::Stopped => return Err(Fault::new("it was stopped")),
                Phase::Starting | Phase::Unhealthy(_) => {}
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends it: its command is told to, and after its time the VM is. Returns when it has ended.
    pub fn stop(&self) {
        let mut inner = self.inner();
        inner.stop = true;
        inner.admitted = false;
        self.changed.notify_all();
        drop(inner);
        // A guest that sleeps does not hear that it is to end, and one that is to end is not suspended any more.
        let _ = self.wake();
        let mut inner = self.inner();
        let grace = self.plan.release.spec.stop_grace;
        if let Some(control) = &inner.control {
            let stop = Message::Stop(Stop { grace_millis: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) });
            // Others wait for the lock meanwhile, and the guest may not read.
            let _ = stop.write(&mut Timed::new(control, TOLD));
        } else if let Some(guest) = &inner.guest {
            guest.stop();
        }
        // The guest kills the command after that time, and turns itself off.
        let late = Instant::now().checked_add(grace.saturating_add(Duration::from_secs(5)));
        while !matches!(inner.phase, Phase::Stopped | Phase::Failed(_)) {
            let left = late.map_or(Duration::ZERO, |late| late.saturating_duration_since(Instant::now()));
            if left.is_zero()
                && let Some(guest) = &inner.guest
            {
                guest.stop();
            }
            let wait = left.max(Duration::from_millis(20));
            inner = self.changed.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn guest(&self) -> Result<Arc<dyn Guest>> {
        let guest = self.inner().guest.clone();
        guest.ok_or_else(|| Fault::new(format!("VM {} does not run", self.plan.slot)))
    }

    /// A volume that it has, if it runs.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<VolumeHandle> {
        self.inner().guest.as_ref()?.volume(name)
    }

    /// What it has used since it was started last; none if it does not run.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        // The lock is free again before the guest is asked.
        let guest = self.inner().guest.clone()?;
        Some(guest.usage())
    }

    /// Suspends it if it is healthy and nothing is connected.
    ///
    /// # Errors
    /// It cannot be saved; it goes on.
    pub(super) fn suspend(&self) -> Result<()> {
        let mut inner = self.inner();
        let idle = inner.admitted
            && !inner.stop
            && inner.phase == Phase::Healthy
            && self.connections.load(Ordering::SeqCst) == 0;
        let Some(guest) = inner.guest.clone().filter(|_| idle) else { return Ok(()) };
        // Its memory is written to the disk, which takes its time: whoever wakes it breaks that off, and all others go on.
        (inner.turning, inner.wanted) = (true, false);
        drop(inner);
        let saved = guest.suspend(self.plan.log.parent().unwrap_or_else(|| Path::new("/")));
        if saved.is_err() && self.inner().wanted {
            return self.turned(Ok(()), Phase::Healthy);
        }
        self.turned(saved, Phase::Suspended)
    }

    /// Its guest was suspended or woken, or could not be.
    fn turned(&self, how: Result<()>, phase: Phase) -> Result<()> {
        let mut inner = self.inner();
        inner.turning = false;
        // If it has ended meanwhile, that holds.
        if how.is_ok() && matches!(inner.phase, Phase::Healthy | Phase::Suspended) {
            self.enter(&mut inner, phase);
        }
        self.changed.notify_all();
        how
    }

    /// Nobody turns it any more. One that is being suspended goes on instead.
    fn settled(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner();
        while inner.turning {
            if let Some(guest) = inner.guest.clone().filter(|_| inner.phase == Phase::Healthy) {
                inner.wanted = true;
                drop(inner);
                // Nothing yet, if it has just begun; nothing any more, if it sleeps by now.
                let _ = guest.resume();
                inner = self.inner();
            }
            let still = |inner: &mut Inner| inner.turning;
            let waited = self.changed.wait_timeout_while(inner, AGAIN, still);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner
    }

    /// Wakes it if it is suspended. One that is being suspended goes on at once.
    ///
    /// # Errors
    /// It has ended.
    pub fn wake(&self) -> Result<()> {
        let mut inner = self.settled();
        let Some(guest) = inner.guest.clone().filter(|_| inner.phase == Phase::Suspended) else { return Ok(()) };
        inner.turning = true;
        inner.used = Instant::now();
        drop(inner);
        self.turned(guest.resume(), Phase::Healthy)
    }

    /// Connects to a port of the guest's vsock.
    ///
    /// # Errors
    /// The VM does not run, or does not answer in time.
    pub fn connect(&self, port: u32, limit: Duration) -> Result<UnixStream> {
        self.wake()?;
        self.guest()?.connect(port, limit)
    }

    /// Connects to a TCP port of the guest's own loopback.
    ///
    /// # Errors
    /// The VM does not run, or nobody listens there.
    pub fn forward(&self, port: u16, limit: Duration) -> Result<UnixStream> {
        forward(|| self.connect(FORWARD_PORT, limit), port, limit)
    }

    /// Counts a connection for as long as what is returned is kept.
    #[must_use]
    pub fn count(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.inner().used = Instant::now();
        Counted(Arc::clone(self))
    }

    /// Counts a connection that has been there already, if the VM is awake and takes traffic.
    #[must_use]
    pub fn count_again(self: &Arc<Self>) -> Option<Counted> {
        // Counted first: whoever suspends or drains it either sees the count, or is seen here.
        let counted = self.count();
        let is_awake = {
            let inner = self.inner();
            inner.admitted && !inner.turning && inner.phase == Phase::Healthy
        };
        is_awake.then_some(counted)
    }
}

/// A connection that counts.
pub struct Counted(Arc<Machine>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.inner().used = Instant::now();
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}
