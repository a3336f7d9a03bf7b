//! Limits that several devices keep to together, and the line in which these wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::cost::{Buckets, Cost};
use crate::config::Limits;
use crate::error::Result;
use crate::event::Waker;
use crate::sys::lock;

/// One who waits does so for this long at least, unless a bucket is full before: being woken for each request costs more.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// One who does not come so long after his time loses what is kept for him.
const PATIENCE: Duration = Duration::from_millis(100);

/// Limits that several devices keep to together: disks and network cards, of one VM or of several, on whatever threads. A clone is the
/// same group.
///
/// Devices that wait stand in a line, in the order in which they came. Each is kept what it needs for its next request, or for the
/// next 64 KiB of a large one, so none starves, whatever the others ask for. What comes beyond that goes to the one that looks first,
/// and when each of them looks, a millisecond or two later, is drawn by lot, so those that want more than there is get the same in the
/// long run. A device whose thread is held up for more than 100 ms after its time does not hold the others up: then they take what was
/// kept for it, but not its place in the line.
///
/// A device may have [limits of its own](crate::Disk::limits) as well. Then it keeps to both.
///
/// ```
/// use vmcell::{Disk, LimitGroup, Limits, RateLimit};
///
/// # let file = || vmcell::testing::memory_disk(4096);
/// let tenant = LimitGroup::new(Limits::new().operations(RateLimit::per_second(4000)))?;
/// let root = Disk::from_file(file())?.limit_group(&tenant);
/// let data = Disk::from_file(file())?.limit_group(&tenant); // of another VM
/// // ... and later, for both:
/// tenant.set_limits(Limits::new().operations(RateLimit::per_second(8000)))?;
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone)]
pub struct LimitGroup {
    shared: Arc<Shared>,
}

struct Shared {
    /// Read without the lock: nothing else is to be done for a device that is not limited.
    is_limited: AtomicBool,
    was_set: AtomicBool,
    line: Mutex<Line>,
    waits: AtomicU64,
    waited_nanos: AtomicU64,
}

struct Line {
    buckets: Buckets,
    waiting: VecDeque<Waiter>,
    next_id: u64,
    members: usize,
    /// By which lots are drawn.
    lot: u64,
}

struct Waiter {
    id: u64,
    /// What he waits for.
    least: Cost,
    /// His time.
    until: Instant,
    waker: Option<Waker>,
}

impl LimitGroup {
    /// A group whose buckets are full.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a limit that is out of range.
    pub fn new(limits: Limits) -> Result<Self> {
        let group = Self::unlimited();
        group.set_limits(limits)?;
        Ok(group)
    }

    fn unlimited() -> Self {
        let line = Line { buckets: Buckets::default(), waiting: VecDeque::new(), next_id: 0, members: 0, lot: 1 };
        Self {
            shared: Arc::new(Shared {
                is_limited: AtomicBool::new(false),
                was_set: AtomicBool::new(false),
                line: Mutex::new(line),
                waits: AtomicU64::new(0),
                waited_nanos: AtomicU64::new(0),
            }),
        }
    }

    /// Sets other limits, at once and also for requests that wait. What has not been used of a limit stays, up to its new burst. Never
    /// blocks, on any thread.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a limit that is out of range. Then the limits stay as they are.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        limits.validate()?;
        let mut line = self.line();
        line.buckets.set(limits, Instant::now());
        self.shared.was_set.store(true, Ordering::SeqCst);
        self.shared.is_limited.store(!limits.is_none(), Ordering::SeqCst);
        line.wake_all();
        Ok(())
    }

    /// Sets the first limits, unless others were set before.
    pub(crate) fn begin_with(&self, limits: Limits) -> Result<()> {
        if self.shared.was_set.load(Ordering::SeqCst) { Ok(()) } else { self.set_limits(limits) }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.shared.is_limited.load(Ordering::Relaxed)
    }

    pub(super) fn join(&self) -> Member {
        let mut line = self.line();
        line.members = line.members.saturating_add(1);
        // So that nothing is allocated when one waits.
        let missing = line.members.saturating_sub(line.waiting.len());
        line.waiting.reserve(missing);
        line.next_id = line.next_id.wrapping_add(1);
        Member { group: self.clone(), id: line.next_id, waits: false }
    }

    /// How often a device waited, and for how long in all.
    pub(crate) fn waits(&self) -> (u64, Duration) {
        let Shared { waits, waited_nanos, .. } = &*self.shared;
        (waits.load(Ordering::Relaxed), Duration::from_nanos(waited_nanos.load(Ordering::Relaxed)))
    }

    pub(super) fn count_wait(&self) {
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_waited(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.shared.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        lock(&self.shared.line)
    }
}

/// One without limits, until some are [set](LimitGroup::set_limits).
impl Default for LimitGroup {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl std::fmt::Debug for LimitGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitGroup").finish_non_exhaustive()
    }
}

impl Line {
    /// What is kept for those of them that are not late.
    fn kept<'a>(waiting: impl Iterator<Item = &'a Waiter>, now: Instant) -> Cost {
        let is_late = |waiter: &&Waiter| waiter.until.checked_add(PATIENCE).is_some_and(|end| end < now);
        waiting.filter(|waiter| !is_late(waiter)).fold(Cost::default(), |sum, waiter| sum.plus(waiter.least))
    }

    /// What is kept for those before `id`, or for all if it does not wait; and for those behind it.
    fn kept_for_others(&self, id: u64, now: Instant) -> (Cost, Cost) {
        let before = self.waiting.iter().take_while(|waiter| waiter.id != id);
        let behind = self.waiting.iter().skip_while(|waiter| waiter.id != id).skip(1);
        (Self::kept(before, now), Self::kept(behind, now))
    }

    /// How long one waits at least: if there are others, by lot, so that it is not always the same who looks first.
    fn least_wait(&mut self) -> Duration {
        if self.members < 2 {
            return LEAST_WAIT;
        }
        // Xorshift (Marsaglia 2003).
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        LEAST_WAIT.saturating_add(Duration::from_micros(self.lot & 1023))
    }

    fn remove(&mut self, id: u64) {
        self.waiting.retain(|waiter| waiter.id != id);
    }

    fn wake_all(&self) {
        self.waiting.iter().filter_map(|waiter| waiter.waker.as_ref()).for_each(Waker::wake);
    }
}

/// A device's place in a group.
pub(super) struct Member {
    group: LimitGroup,
    id: u64,
    waits: bool,
}

impl Member {
    pub(super) fn group(&self) -> &LimitGroup {
        &self.group
    }

    pub(super) fn ask(&mut self) -> Asking<'_> {
        Asking { line: lock(&self.group.shared.line), id: self.id, waits: &mut self.waits }
    }

    pub(super) fn put_back(&self, cost: Cost) {
        if !cost.is_zero() {
            self.group.line().buckets.put_back(cost);
        }
    }

    /// Waits for nothing any more. Those behind may go sooner than they were told.
    pub(super) fn leave(&mut self) {
        if self.waits {
            self.ask().leave();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
        let mut line = self.group.line();
        line.members = line.members.saturating_sub(1);
    }
}

/// One device's turn at the line.
pub(super) struct Asking<'a> {
    line: MutexGuard<'a, Line>,
    id: u64,
    waits: &'a mut bool,
}

impl Asking<'_> {
    pub(super) fn cap(&self, cost: Cost) -> Cost {
        self.line.buckets.cap(cost)
    }

    /// Whether there is no other device.
    pub(super) fn is_alone(&self) -> bool {
        self.line.members == 1
    }

    /// How much may be taken, which is `least` or more.
    ///
    /// # Errors
    /// When to ask again; until then, the device waits in the line.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        least: Cost,
        waker: Option<&Waker>,
    ) -> std::result::Result<Cost, Instant> {
        let there = self.line.buckets.look(now);
        let (before, behind) = self.line.kept_for_others(self.id, now);
        let Some(at) = self.line.buckets.when(before.plus(least)) else {
            return Ok(there.minus(before.plus(behind)).max(least));
        };
        let enough = now.checked_add(self.line.least_wait()).unwrap_or(now);
        let until = at.max(self.line.buckets.when_full().unwrap_or(at).min(enough));
        match self.line.waiting.iter_mut().find(|waiter| waiter.id == self.id) {
            Some(waiter) => (waiter.least, waiter.until) = (least, until),
            None => self.line.waiting.push_back(Waiter { id: self.id, least, until, waker: waker.cloned() }),
        }
        *self.waits = true;
        Err(until)
    }

    pub(super) fn take(&mut self, cost: Cost) {
        if std::mem::take(self.waits) {
            self.line.remove(self.id);
        }
        self.line.buckets.take(cost);
    }

    /// Waits for nothing any more. Those behind may go sooner than they were told.
    pub(super) fn leave(&mut self) {
        if std::mem::take(self.waits) {
            self.line.remove(self.id);
            self.line.wake_all();
        }
    }
}
