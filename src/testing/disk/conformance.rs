//! The suite for backends of disks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::suite::{Rule, Suite};
use super::{hazards, promises};
use crate::block::DiskBackend;

/// The suite for backends of disks: it tries a [`DiskBackend`] in every way that a disk may use one, against every rule.
///
/// Each call of `make` must return a new backend of at least 1 MiB, with any content, whose operations succeed. (If yours fails on
/// purpose, turn that off here and see [`failing`](Self::failing).) The suite calls the backend as a disk does: after an
/// operation was submitted and the batch has ended, it asks for completions again only if something happens that the
/// backend [wants](DiskBackend::wants), or if a waker is used.
///
/// ```
/// use vmcell::block::FileBackend;
/// use vmcell::testing::{DiskConformance, memory_disk};
///
/// let make = || Box::new(FileBackend::new(memory_disk(1 << 20)).unwrap()) as _;
/// DiskConformance::new(make).run();
/// ```
pub struct DiskConformance {
    suite: Suite,
}

impl DiskConformance {
    /// Makes the suite for the backends that `make` returns.
    pub fn new(make: impl Fn() -> Box<dyn DiskBackend> + 'static) -> Self {
        let patience = Duration::from_secs(10);
        Self { suite: Suite { make: Box::new(make), failing: None, growing: None, losing: None, patience } }
    }

    /// Tries errors, too. `make` returns a backend, and a function that makes its next operation fail.
    #[must_use]
    pub fn failing(mut self, make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnMut()>) + 'static) -> Self {
        self.suite.failing = Some(Box::new(make));
        self
    }

    /// Tries a change of the size, too. `make` returns a backend, and a function that makes its medium larger and returns the new
    /// capacity. The backend is [refreshed](DiskBackend::refresh) after that.
    #[must_use]
    pub fn growing(mut self, make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnOnce() -> u64>) + 'static) -> Self {
        self.suite.growing = Some(Box::new(make));
        self
    }

    /// Tries a loss of power, too. `make` returns a backend, and a function that takes its power away and returns the backend that
    /// comes back, with everything that was stable.
    #[must_use]
    pub fn losing_power(
        mut self,
        make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnOnce() -> Box<dyn DiskBackend>>) + 'static,
    ) -> Self {
        self.suite.losing = Some(Box::new(make));
        self
    }

    /// Sets how long nothing may happen while an operation is in flight. The default is 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.suite.patience = patience;
        self
    }

    /// Tries all rules.
    ///
    /// # Panics
    /// If the backend breaks a rule. The message names each broken rule and says how it was broken.
    pub fn run(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "the backend breaks {} rules:\n{}", failures.len(), failures.join("\n"));
    }

    /// Tries all rules, and returns those that the backend breaks, each with how it was broken.
    pub fn failures(&self) -> Vec<String> {
        let broken = |(name, rule): &Rule| {
            let result = catch_unwind(AssertUnwindSafe(|| rule(&self.suite)));
            let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
            result.err().map(|how| format!("{name}: {how}"))
        };
        promises::RULES.iter().chain(hazards::RULES).filter_map(broken).collect()
    }
}
