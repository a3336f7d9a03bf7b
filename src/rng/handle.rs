//! What the host program changes while the VM runs.

use std::sync::{Arc, Mutex, OnceLock};

use crate::config::RateLimit;
use crate::error::Result;
use crate::event::Waker;
use crate::sys::lock;

/// Reaches a device on whatever thread that is. A clone is the same handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct RngHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    change: Mutex<Option<Change>>,
    waker: OnceLock<Waker>,
}

/// Another rate, or none, that the device does not keep to yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) rate: Option<RateLimit>,
}

impl RngHandle {
    /// Sets another rate. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for one that is out of range.
    pub(crate) fn set_rate(&self, rate: Option<RateLimit>) -> Result<()> {
        rate.map_or(Ok(()), |rate| rate.validate()).map_err(|error| error.about("the rng"))?;
        *lock(&self.shared.change) = Some(Change { rate });
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
        Ok(())
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.shared.waker.set(waker);
    }

    /// Takes what was set since the last call.
    pub(super) fn take(&self) -> Option<Change> {
        lock(&self.shared.change).take()
    }
}
