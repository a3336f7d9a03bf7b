//! An interrupt that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::virtio::Interrupt;

/// Counts the interrupts that a device raises.
#[derive(Debug, Default)]
pub struct RecordingInterrupt {
    used: AtomicU32,
    config: AtomicU32,
}

impl RecordingInterrupt {
    /// Makes one that has counted nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the number of interrupts for used buffers, of any queue.
    pub fn used_count(&self) -> u32 {
        self.used.load(Ordering::SeqCst)
    }

    /// Returns the number of interrupts for changes of the configuration.
    pub fn config_count(&self) -> u32 {
        self.config.load(Ordering::SeqCst)
    }
}

impl Interrupt for RecordingInterrupt {
    fn signal_used(&self, _queue: u16) {
        self.used.fetch_add(1, Ordering::SeqCst);
    }

    fn signal_config(&self) {
        self.config.fetch_add(1, Ordering::SeqCst);
    }
}
