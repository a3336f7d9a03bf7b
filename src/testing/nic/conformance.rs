//! The suite for NICs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::driver::NicDriver;
use super::rules::RULES;
use super::suite::Suite;
use super::wire::Wire;
use crate::event::IoThread;
use crate::net::Nic;

/// The suite for backends of NICs: it drives a NIC as a guest does, and the other end of its wire, against every rule that a
/// [`NicBackend`](crate::net::NicBackend) must keep.
///
/// Each call of `make` returns a new NIC with the other end of its wire. Frames may be lost, as on any wire, but not all of them.
/// The suite's frames have the EtherType 0x88b5 and the broadcast address; it ignores anything else on the wire.
///
/// ```no_run
/// use vmcell::Nic;
/// use vmcell::net::NicBackend;
/// use vmcell::testing::NicConformance;
///
/// # fn cable() -> (Box<dyn NicBackend>, Box<dyn NicBackend>) { unimplemented!() }
/// let make = || {
///     let (one, other) = cable(); // two backends of yours, connected
///     (Nic::backend(one), Nic::backend(other))
/// };
/// NicConformance::of_pairs(make).run();
/// ```
pub struct NicConformance {
    suite: Suite,
}

impl NicConformance {
    /// The length of the largest frame: the largest IP packet behind an Ethernet header with a VLAN tag.
    pub const LARGEST_FRAME: usize = 65553;

    /// Makes the suite for a NIC with a wire that the test holds.
    pub fn new(make: impl Fn() -> (Nic, Box<dyn Wire>) + 'static) -> Self {
        let (largest, patience) = (Self::LARGEST_FRAME, Duration::from_secs(10));
        Self { suite: Suite { make: Box::new(make), largest, patience } }
    }

    /// Makes the suite for two NICs that are connected. The second one is only used as the wire of the first, so run the suite with
    /// both orders if they differ.
    pub fn of_pairs(make: impl Fn() -> (Nic, Nic) + 'static) -> Self {
        Self::new(move || {
            let (nic, other) = make();
            let io_thread = IoThread::new("conformance-2").expect("the host gives a thread");
            let mut wire = NicDriver::new(other, &io_thread).expect("the other NIC is well-formed");
            wire.fill();
            (nic, Box::new(wire))
        })
    }

    /// Sets the length of the largest frame that is tried, at least 1514. The default is [the largest](Self::LARGEST_FRAME).
    #[must_use]
    pub fn largest_frame(mut self, bytes: usize) -> Self {
        self.suite.largest = bytes.clamp(1514, Self::LARGEST_FRAME);
        self
    }

    /// Sets how long the suite waits for a frame. The default is 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.suite.patience = patience;
        self
    }

    /// Tries all rules.
    ///
    /// # Panics
    /// If the NIC breaks a rule. The message names each broken rule and says how it was broken.
    pub fn run(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "the NIC breaks {} rules:\n{}", failures.len(), failures.join("\n"));
    }

    /// Tries all rules, and returns those that the NIC breaks, each with how it was broken.
    pub fn failures(&self) -> Vec<String> {
        let broken = |(name, rule): &super::suite::Rule| {
            let result = catch_unwind(AssertUnwindSafe(|| rule(&self.suite)));
            let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
            result.err().map(|how| format!("{name}: {how}"))
        };
        RULES.iter().filter_map(broken).collect()
    }
}
