//! What the host program may change of a disk while its VM runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{DiskBackend, DiskInfo, DiskStatus};
use super::metrics::{DiskCounters, DiskMetrics};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Waker;
use crate::limit::LimitGroup;
use crate::meter::Meter;
use crate::sys::{check_may_wait, lock, lock_if_free};
use crate::virtio::Guarded;

/// Where changes wait for the thread that owns the disk.
#[derive(Default)]
pub(super) struct Changes {
    waiting: Mutex<VecDeque<Change>>,
    posted: AtomicBool,
    ended: AtomicBool,
    waker: Mutex<Option<Waker>>,
    status: Mutex<DiskStatus>,
    /// What the backend counts.
    meter: Mutex<Meter>,
    pub(super) counters: DiskCounters,
    /// The disk's own limits.
    pub(super) limits: LimitGroup,
}

pub(super) enum Change {
    /// The medium may have changed its size.
    Refresh,
    Replace(Replacement),
}

/// Another backend in place of the present one.
pub(super) struct Replacement {
    backend: Guarded<dyn DiskBackend>,
    info: DiskInfo,
    reply: Reply,
    /// Taken by whoever comes first: the disk, to make the change, or the caller, to give it up.
    decided: Arc<AtomicBool>,
}

/// Gives the backend that is not used, the past one or the one that was refused, to whoever asked for the change, who drops it:
/// that may take a while.
pub(super) struct Reply(SyncSender<Answer>);

type Answer = (Result<()>, Guarded<dyn DiskBackend>);

impl Reply {
    pub(super) fn send(self, result: Result<()>, unused: Guarded<dyn DiskBackend>) {
        let _ = self.0.send((result, unused));
    }
}

impl Replacement {
    /// Takes the change up, unless its caller has given up.
    pub(super) fn begin(self) -> Option<(Guarded<dyn DiskBackend>, DiskInfo, Reply)> {
        let mine = !self.decided.swap(true, Ordering::SeqCst);
        mine.then_some((self.backend, self.info, self.reply))
    }

    /// Its caller has given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.decided.load(Ordering::SeqCst)
    }
}

impl Changes {
    pub(super) fn set_waker(&self, waker: Waker) {
        *lock(&self.waker) = Some(waker);
    }

    pub(super) fn set_status(&self, status: DiskStatus, meter: Meter) {
        *lock(&self.status) = status;
        *lock(&self.meter) = meter;
    }

    pub(super) fn metrics(&self) -> DiskMetrics {
        let DiskStatus { engine, fallback } = self.status();
        let (limited, limited_time) = self.limits.waits();
        DiskMetrics { engine, fallback, limited, limited_time, ..self.counters.read() }
    }

    /// What the backend counts, by name.
    pub(super) fn backend_counters(&self) -> BTreeMap<String, u64> {
        lock(&self.meter).read()
    }

    pub(super) fn status(&self) -> DiskStatus {
        lock(&self.status).clone()
    }

    /// Takes the next change, by the owner of the disk, which never waits for it.
    pub(super) fn take(&self) -> Option<Change> {
        if !self.posted.swap(false, Ordering::SeqCst) {
            return None;
        }
        // Whoever holds it sets `posted` again, and wakes us, when it has let go.
        let change = lock_if_free(&self.waiting)?.pop_front();
        if change.is_some() {
            self.posted.store(true, Ordering::SeqCst);
        }
        change
    }

    pub(super) fn refresh(&self) {
        self.post(Change::Refresh);
    }

    pub(super) fn replace(&self, backend: Guarded<dyn DiskBackend>, info: DiskInfo, limit: Duration) -> Result<()> {
        check_may_wait("replace a disk")?;
        let (reply, answer) = sync_channel(1);
        let decided = Arc::new(AtomicBool::new(false));
        let reply = Reply(reply);
        self.post(Change::Replace(Replacement { backend, info, reply, decided: Arc::clone(&decided) }));
        match answer.recv_timeout(limit) {
            Ok((result, _unused)) => result,
            Err(RecvTimeoutError::Timeout) => self.give_up(&decided, &answer, limit),
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(ErrorKind::InvalidState, "the disk's VM has ended")),
        }
    }

    /// The disk is gone: what waits for it, or comes later, is refused.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Dropped without the lock: a backend of a user's may reach for this disk then.
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        drop(waiting);
    }

    fn post(&self, change: Change) {
        let mut waiting = lock(&self.waiting);
        if self.ended.load(Ordering::SeqCst) {
            return;
        }
        // One look at the size is as good as several.
        if !matches!((&change, waiting.back()), (Change::Refresh, Some(Change::Refresh))) {
            waiting.push_back(change);
        }
        drop(waiting);
        self.call();
    }

    /// Has the owner of the disk look at what was posted.
    fn call(&self) {
        self.posted.store(true, Ordering::SeqCst);
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }

    /// The limit has passed. If the change is being made at this moment, its answer is near.
    fn give_up(&self, decided: &AtomicBool, answer: &Receiver<Answer>, limit: Duration) -> Result<()> {
        if decided.swap(true, Ordering::SeqCst) {
            let ended = |_| Error::new(ErrorKind::InvalidState, "the disk's VM has ended");
            return answer.recv().map_err(ended).and_then(|(result, _unused)| result);
        }
        // The disk does not wait for it any more.
        self.call();
        let message = format!("the disk had requests in flight, or no running VM, for {} ms", limit.as_millis());
        Err(Error::new(ErrorKind::Timeout, message))
    }
}
