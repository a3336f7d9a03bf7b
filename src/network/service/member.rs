//! A machine behind a service's address, and how many flows it has.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::super::address::MachineAddress;
use super::super::pulse::Pulse;
use crate::meter::Counter;
use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A machine as a member of one service.
#[derive(Debug)]
pub(in crate::network) struct Member {
    address: MachineAddress,
    pulse: Arc<Pulse>,
    /// It has no port here, and lies behind an uplink.
    is_remote: bool,
    /// How many of the service's flows it has now.
    open: AtomicUsize,
    /// How many it has had.
    begun: Counter,
    /// It gets no new flows.
    draining: AtomicBool,
    /// It is no member any more.
    removed: AtomicBool,
}

impl Member {
    pub(in crate::network) fn new(address: MachineAddress, pulse: Arc<Pulse>) -> Self {
        let (open, begun) = (AtomicUsize::new(0), Counter::new());
        let (draining, removed) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { address, pulse, is_remote: false, open, begun, draining, removed }
    }

    /// A machine of another host. Whether it runs is known there alone, so here it does.
    pub(super) fn remote(address: MachineAddress) -> Self {
        let pulse = Pulse::new(Duration::ZERO);
        pulse.set_running(true);
        Self { is_remote: true, ..Self::new(address, Arc::new(pulse)) }
    }

    pub(super) fn is_remote(&self) -> bool {
        self.is_remote
    }

    pub(in crate::network) fn address(&self) -> MachineAddress {
        self.address
    }

    pub(in crate::network) fn ip(&self) -> Ipv6Addr {
        self.address.ip()
    }

    pub(super) fn runs(&self) -> bool {
        self.pulse.runs()
    }

    pub(super) fn is(&self, pulse: &Arc<Pulse>) -> bool {
        Arc::ptr_eq(&self.pulse, pulse)
    }

    pub(in crate::network) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Its flows end.
    pub(in crate::network) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Gives it one more flow.
    pub(in crate::network) fn lease(self: &Arc<Self>) -> Lease {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.add(1);
        Lease { member: Arc::clone(self), starts: self.pulse.starts(), counts: true }
    }
}

/// A flow's share of a member: it counts until it is released or dropped.
#[derive(Debug)]
pub(in crate::network) struct Lease {
    member: Arc<Member>,
    starts: u32,
    counts: bool,
}

impl Lease {
    pub(in crate::network) fn member(&self) -> &Member {
        &self.member
    }

    /// Whether the member still knows of the flow: it is one, and its driver has not begun anew.
    pub(in crate::network) fn is_valid(&self) -> bool {
        !self.member.removed.load(Ordering::Acquire) && self.member.pulse.starts() == self.starts
    }

    /// The flow has ended. Its last packets still pass.
    pub(in crate::network) fn release(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.member.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}
