//! How a device calls the driver, and what the MMIO transport makes of it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::spec::mmio::{INTERRUPT_CONFIG, INTERRUPT_USED};
use crate::error::Result;
use crate::sys::EventFd;

/// Raises the device's interrupt. Called from any thread; never blocks.
pub trait Interrupt: Send + Sync {
    /// Tells the driver that the queue has used buffers which it wants to hear of.
    fn signal_used(&self, queue: u16);

    /// Tells the driver that the config space or the device status changed.
    fn signal_config(&self);
}

/// The interrupt line of one MMIO device: the reasons, then an edge on the line.
pub(super) struct MmioInterrupt {
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    line: EventFd,
}

impl MmioInterrupt {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            line: EventFd::new()?,
        })
    }

    pub(super) fn line(&self) -> &EventFd {
        &self.line
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::AcqRel);
    }

    /// Counts the changes of the config space, so that the driver can see that one came in between its reads.
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The device has failed: sets DEVICE_NEEDS_RESET, and says so to a driver that is there to hear it (2.1.2).
    pub(super) fn fail(&self, tell: bool) {
        self.needs_reset.store(true, Ordering::Release);
        if tell {
            self.raise(INTERRUPT_CONFIG);
        }
    }

    pub(super) fn reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
        self.status.store(0, Ordering::Release);
        self.line.take();
    }

    // The line is an edge: it is signalled even if the reason stands already, since the driver may be past reading it.
    fn raise(&self, reason: u32) {
        self.status.fetch_or(reason, Ordering::AcqRel);
        self.line.signal();
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_used(&self, _queue: u16) {
        self.raise(INTERRUPT_USED);
    }

    fn signal_config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(INTERRUPT_CONFIG);
    }
}
