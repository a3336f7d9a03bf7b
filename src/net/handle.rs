//! What the host program may change of a NIC while its VM runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::metrics::{NicCounters, NicMetrics};
use crate::config::Limits;
use crate::error::Result;
use crate::event::Waker;
use crate::limit::LimitGroup;
use crate::meter::Meter;

/// Changes a NIC while its VM runs. Any thread may use it, and a clone changes the same NIC. No call blocks.
///
/// ```no_run
/// # fn main() -> vmcell::Result<()> {
/// let nic = vmcell::Nic::tap("tap0")?;
/// let handle = nic.handle();
/// // ... once the VM runs:
/// handle.set_link(false); // the guest sees its cable pulled out
/// handle.set_link(true);
/// handle.announce(); // the guest tells its neighbours where it is now
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NicHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: AtomicBool,
    announce: AtomicBool,
    waker: OnceLock<Waker>,
    meter: OnceLock<Meter>,
    counters: NicCounters,
    /// The card's own limits.
    receive_limits: LimitGroup,
    send_limits: LimitGroup,
}

impl NicHandle {
    pub(super) fn new() -> Self {
        let shared = Shared {
            link: AtomicBool::new(true),
            announce: AtomicBool::new(false),
            waker: OnceLock::new(),
            meter: OnceLock::new(),
            counters: NicCounters::default(),
            receive_limits: LimitGroup::default(),
            send_limits: LimitGroup::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Connects or cuts the link, which is connected at first. While the link is down, the guest gets no frames, and those that
    /// it sends are dropped. The link is up if both this and the backend say so.
    pub fn set_link(&self, up: bool) {
        self.shared.link.store(up, Ordering::SeqCst);
        self.wake();
    }

    /// Asks the guest to announce itself to its neighbours, as after a move to another host (5.1.6.5.4). If its driver does not
    /// support announcements, nothing happens.
    pub fn announce(&self) {
        self.shared.announce.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Sets other limits for the frames that the guest [gets](super::Nic::receive_limits), or none, at once and also for those that wait.
    /// What has not been used of a limit stays, up to its new burst.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for a limit that is out of range. Then the limits stay as they are.
    pub fn set_receive_limits(&self, limits: Limits) -> Result<()> {
        self.shared.receive_limits.set_limits(limits)
    }

    /// Sets other limits for the frames that the guest [sends](super::Nic::send_limits), or none, in the same way.
    ///
    /// # Errors
    /// As [`set_receive_limits`](Self::set_receive_limits).
    pub fn set_send_limits(&self, limits: Limits) -> Result<()> {
        self.shared.send_limits.set_limits(limits)
    }

    /// Returns what the card has done so far.
    pub fn metrics(&self) -> NicMetrics {
        let (received_limited, received_limited_time) = self.shared.receive_limits.waits();
        let (sent_limited, sent_limited_time) = self.shared.send_limits.waits();
        let counts = self.shared.counters.read();
        NicMetrics { received_limited, received_limited_time, sent_limited, sent_limited_time, ..counts }
    }

    /// Reads the counters that the card's backend [has itself](super::NicBackend::metrics), by name.
    pub fn backend_counters(&self) -> BTreeMap<String, u64> {
        self.shared.meter.get().map(Meter::read).unwrap_or_default()
    }

    pub(super) fn receive_limits(&self) -> &LimitGroup {
        &self.shared.receive_limits
    }

    pub(super) fn send_limits(&self) -> &LimitGroup {
        &self.shared.send_limits
    }

    pub(super) fn counters(&self) -> &NicCounters {
        &self.shared.counters
    }

    pub(super) fn set_meter(&self, meter: Meter) {
        let _ = self.shared.meter.set(meter);
    }

    pub(super) fn link(&self) -> bool {
        self.shared.link.load(Ordering::SeqCst)
    }

    pub(super) fn take_announce(&self) -> bool {
        self.shared.announce.swap(false, Ordering::SeqCst)
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.shared.waker.set(waker);
    }

    fn wake(&self) {
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
    }
}
