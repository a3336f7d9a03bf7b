//! What the MMIO transport makes of a device's interrupts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::Result;
use crate::sys::EventFd;
use crate::virtio::interrupt::Interrupt;
use crate::virtio::spec::mmio::{INTERRUPT_CONFIG, INTERRUPT_USED};

/// The interrupt line of one MMIO device: the reasons, then an edge on the line.
pub(super) struct MmioInterrupt {
    status: AtomicU32,
    line: EventFd,
    raised: AtomicU64,
}

impl MmioInterrupt {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { status: AtomicU32::new(0), line: EventFd::new()?, raised: AtomicU64::new(0) })
    }

    pub(super) fn line(&self) -> &EventFd {
        &self.line
    }

    /// How often the line was signalled.
    pub(super) fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn acknowledge(&self, reasons: u32) {
        self.status.fetch_and(!reasons, Ordering::AcqRel);
    }

    /// Goes on from a saved state: what was not acknowledged is raised again, since nobody knows whether it was seen.
    pub(super) fn restore(&self, status: u32) {
        self.raise(status & (INTERRUPT_USED | INTERRUPT_CONFIG));
    }

    // The line is an edge: it is signalled even if the reason stands already, since the driver may be past reading it.
    fn raise(&self, reason: u32) {
        self.raised.fetch_add(1, Ordering::Relaxed);
        self.status.fetch_or(reason, Ordering::AcqRel);
        self.line.signal();
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_used(&self, _queue: u16) {
        self.raise(INTERRUPT_USED);
    }

    fn signal_config(&self) {
        self.raise(INTERRUPT_CONFIG);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.line.take();
    }
}
