//! The suite for NICs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::driver::NicDriver;
use super::rules::RULES;
use super::suite::Suite;
use super::wire::Wire;
use crate::event::IoThread;
use crate::net::Nic;

/// What every NIC must keep to, whatever [`NicBackend`](crate::net::NicBackend) is under it: drives one as a guest does, and
/// its wire.
///
/// Each call of `make` gives a NIC with the other end of its wire. Frames may be lost, as on any wire, but not all of them.
/// They have the EtherType 0x88b5 and go to everybody; whatever else is on the wire is passed over.
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
    /// The largest frame of all: the most that IP can say, behind an Ethernet header with a VLAN tag.
    pub const LARGEST_FRAME: usize = 65553;

    /// The suite for a NIC with a wire that the test holds.
    pub fn new(make: impl Fn() -> (Nic, Box<dyn Wire>) + 'static) -> Self {
        let (largest, patience) = (Self::LARGEST_FRAME, Duration::from_secs(10));
        Self { suite: Suite { make: Box::new(make), largest, patience } }
    }

    /// The suite for two NICs that are connected. The second one is only used as a wire: call it with both orders.
    pub fn of_pairs(make: impl Fn() -> (Nic, Nic) + 'static) -> Self {
        Self::new(move || {
            let (nic, other) = make();
            let io_thread = IoThread::new("conformance-2").expect("the host gives a thread");
            let mut wire = NicDriver::new(other, &io_thread).expect("the other NIC is well-formed");
            wire.fill();
            (nic, Box::new(wire))
        })
    }

    /// The largest frame that is tried, at least 1514. The default is [the largest of all](Self::LARGEST_FRAME).
    #[must_use]
    pub fn largest_frame(mut self, bytes: usize) -> Self {
        self.suite.largest = bytes.clamp(1514, Self::LARGEST_FRAME);
        self
    }

    /// How long a frame may be missed. The default is 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.suite.patience = patience;
        self
    }

    /// Tries all rules.
    ///
    /// # Panics
    /// If the NIC breaks one; the message names each that it breaks, and says how.
    pub fn run(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "the NIC breaks {} rules:\n{}", failures.len(), failures.join("\n"));
    }

    /// The rules that the NIC breaks, each with how.
    pub fn failures(&self) -> Vec<String> {
        let broken = |(name, rule): &super::suite::Rule| {
            let result = catch_unwind(AssertUnwindSafe(|| rule(&self.suite)));
            let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
            result.err().map(|how| format!("{name}: {how}"))
        };
        RULES.iter().filter_map(broken).collect()
    }
}
