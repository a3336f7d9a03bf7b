//! What the host program asks of a balloon, and learns from it, while its VM runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::PAGE;
use super::statistics::{BalloonStatistics, Received};
use crate::config::{BalloonConfig, check_statistics_interval};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Waker;
use crate::meter::Counter;
use crate::sys::{check_may_wait, lock, lock_if_free};

/// Asks the guest to give memory back while its VM runs, and tells how much it has given. Any thread may use it, and a clone is a handle to
/// the same balloon. Only [`statistics_within`](Self::statistics_within) blocks.
///
/// ```no_run
/// use std::time::Duration;
/// use vmcell::{BalloonConfig, Boot, Vm};
///
/// let vm = Vm::builder().memory_mib(1024).boot(Boot::linux("vmlinuz")).balloon(BalloonConfig::new()).build()?;
/// vm.start()?;
/// let balloon = vm.balloon()?;
/// let free = balloon.statistics_within(Duration::from_secs(60))?.free.unwrap_or(0);
/// balloon.set_target(free / 2)?; // the guest has that much less from soon on
/// println!("{} of {} bytes are back", balloon.actual(), balloon.target());
/// # Ok::<(), vmcell::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BalloonHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ram: u64,
    /// In pages.
    target: AtomicU32,
    actual: AtomicU32,
    reported: Counter,
    /// Seconds between statistics, or 0.
    interval: AtomicU32,
    /// Somebody waits for statistics.
    wanted: AtomicBool,
    waker: OnceLock<Waker>,
    latest: Mutex<Latest>,
    changed: Condvar,
    /// The device could not leave its statistics, since somebody was looking at them.
    missed: AtomicBool,
}

#[derive(Debug, Default)]
struct Latest {
    received: Option<Received>,
    /// How many there have been.
    count: u64,
    has_ended: bool,
}

impl BalloonHandle {
    pub(super) fn new(config: &BalloonConfig, ram: u64, reported: Counter) -> Self {
        let shared = Shared {
            ram,
            target: AtomicU32::new(pages(config.mib.saturating_mul(1 << 20))),
            actual: AtomicU32::new(0),
            reported,
            interval: AtomicU32::new(config.statistics_s),
            wanted: AtomicBool::new(false),
            waker: OnceLock::new(),
            latest: Mutex::default(),
            changed: Condvar::new(),
            missed: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks the guest to have given back so many bytes in all, in whole pages of 4096: a remainder is left out. It gives more, or takes
    /// some back, as fast as it can, and tells by [`actual`](Self::actual) how far it is. A guest without a driver does nothing, and a
    /// hostile one does what it likes.
    ///
    /// A guest that gives nearly all that it has ends its processes, unless it may [deflate](crate::BalloonConfig::deflate_on_oom()) the
    /// balloon; see [`statistics`](Self::statistics) for what it can spare.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if that is more than the guest's RAM. The target stays as it was.
    pub fn set_target(&self, bytes: u64) -> Result<()> {
        let ram = self.shared.ram;
        if bytes > ram {
            let message = format!("a target of {bytes} bytes was asked for, allowed are 0 to {ram}, the guest's RAM");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.shared.target.store(pages(bytes), Ordering::SeqCst);
        self.wake();
        Ok(())
    }

    /// Does the same as [`set_target`](Self::set_target), in MiB.
    ///
    /// # Errors
    /// Those of [`set_target`](Self::set_target).
    pub fn set_target_mib(&self, mib: u64) -> Result<()> {
        let ram = self.shared.ram >> 20;
        if mib > ram {
            let message = format!("a target of {mib} MiB was asked for, allowed are 0 to {ram} MiB, the guest's RAM");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.set_target(mib.saturating_mul(1 << 20))
    }

    /// Returns how many bytes the guest was asked to give back.
    pub fn target(&self) -> u64 {
        bytes(&self.shared.target)
    }

    /// Returns how many bytes the guest's driver says that it has given back. What has come is counted by the device, as `inflated_pages`
    /// and `deflated_pages` of its [metrics](crate::DeviceMetrics::counters).
    pub fn actual(&self) -> u64 {
        bytes(&self.shared.actual)
    }

    /// Returns how many bytes of free pages the guest has [reported](crate::BalloonConfig::reporting()) since the VM was built, and the host got back.
    /// A page that was used again, and freed again, is counted again.
    pub fn reported(&self) -> u64 {
        self.shared.reported.get()
    }

    /// Sets how often the guest is asked for statistics by itself, as [`statistics_every`](crate::BalloonConfig::statistics_every) does.
    /// What is below a second is left out, and 0 means never.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if it is more than a day.
    pub fn set_statistics_interval(&self, interval: Duration) -> Result<()> {
        let seconds = interval.as_secs();
        check_statistics_interval(seconds)?;
        self.shared.interval.store(u32::try_from(seconds).unwrap_or_default(), Ordering::SeqCst);
        self.wake();
        Ok(())
    }

    /// Returns what the guest said last of its memory, and how long ago; `None` if it has said nothing since its driver began.
    pub fn statistics(&self) -> Option<BalloonStatistics> {
        let latest = self.look(|latest| latest.received.clone());
        latest.map(|received| received.now())
    }

    /// Asks the guest what it says of its memory now, and waits for the answer, at most for `limit`. A guest that has not loaded its driver
    /// yet may answer within the limit as well.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if no answer came; [`ErrorKind::InvalidState`] if the VM is gone, and in a
    /// [callback](crate::event#what-a-callback-may-do).
    pub fn statistics_within(&self, limit: Duration) -> Result<BalloonStatistics> {
        check_may_wait("wait for statistics")?;
        let begun = Instant::now();
        let before = self.look(|latest| latest.count);
        self.shared.wanted.store(true, Ordering::SeqCst);
        self.wake();
        let waits = |latest: &mut Latest| latest.count == before && !latest.has_ended;
        let waited = self.shared.changed.wait_timeout_while(lock(&self.shared.latest), limit, waits);
        let (latest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (count, received, has_ended) = (latest.count, latest.received.clone(), latest.has_ended);
        drop(latest);
        self.make_up();
        match received {
            Some(received) if count != before => Ok(received.now()),
            _ if has_ended => Err(Error::new(ErrorKind::InvalidState, "the balloon's VM is gone")),
            _ => {
                let waited = begun.elapsed().as_millis();
                let message =
                    format!("the guest has said nothing of its memory for {waited} ms, its driver may not be there");
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.shared.waker.set(waker);
    }

    pub(super) fn target_pages(&self) -> u32 {
        self.shared.target.load(Ordering::SeqCst)
    }

    /// For a device that is restored.
    pub(super) fn set_target_pages(&self, pages: u32) {
        self.shared.target.store(pages, Ordering::SeqCst);
    }

    pub(super) fn actual_pages(&self) -> u32 {
        self.shared.actual.load(Ordering::SeqCst)
    }

    pub(super) fn set_actual_pages(&self, pages: u32) {
        self.shared.actual.store(pages, Ordering::SeqCst);
    }

    pub(super) fn interval(&self) -> Option<Duration> {
        let seconds = self.shared.interval.load(Ordering::SeqCst);
        (seconds > 0).then_some(Duration::from_secs(seconds.into()))
    }

    /// Whether somebody has asked for statistics since the last call of this.
    pub(super) fn take_wanted(&self) -> bool {
        self.shared.wanted.swap(false, Ordering::SeqCst)
    }

    /// Leaves statistics, by the device, which never waits: if somebody is looking at this moment, it is woken and comes again. Says
    /// whether they were left.
    pub(super) fn leave(&self, received: Option<&Received>) -> bool {
        let left = self.try_leave(received);
        if left {
            return true;
        }
        self.shared.missed.store(true, Ordering::SeqCst);
        // They may have looked away before they could see that.
        self.try_leave(received)
    }

    fn try_leave(&self, received: Option<&Received>) -> bool {
        let Some(mut latest) = lock_if_free(&self.shared.latest) else { return false };
        latest.received = received.cloned();
        latest.count = latest.count.saturating_add(received.is_some().into());
        drop(latest);
        self.shared.changed.notify_all();
        true
    }

    /// The device is gone.
    pub(super) fn end(&self) {
        lock(&self.shared.latest).has_ended = true;
        self.shared.changed.notify_all();
    }

    fn look<R>(&self, look: impl FnOnce(&Latest) -> R) -> R {
        let latest = lock(&self.shared.latest);
        let seen = look(&latest);
        drop(latest);
        self.make_up();
        seen
    }

    /// After a look: the device may have come meanwhile.
    fn make_up(&self) {
        if self.shared.missed.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
    }
}

fn pages(bytes: u64) -> u32 {
    u32::try_from(bytes.checked_div(PAGE).unwrap_or_default()).unwrap_or(u32::MAX)
}

fn bytes(pages: &AtomicU32) -> u64 {
    u64::from(pages.load(Ordering::SeqCst)).saturating_mul(PAGE)
}
