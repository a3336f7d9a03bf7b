//! The suite for backends of disks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::suite::{Rule, Suite};
use super::{hazards, promises};
use crate::block::DiskBackend;

/// What every [`DiskBackend`] must keep to: tries one in every way that a disk may use it.
///
/// Each call of `make` gives a disk of its own, of at least 1 MiB, with any content. The backend is called as a disk calls it:
/// it is asked for completions only after it was woken by what it [wants](DiskBackend::wants).
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
    /// The suite for what `make` makes.
    pub fn new(make: impl Fn() -> Box<dyn DiskBackend> + 'static) -> Self {
        let patience = Duration::from_secs(10);
        Self { suite: Suite { make: Box::new(make), failing: None, growing: None, losing: None, patience } }
    }

    /// Tries errors, too: `make` gives a disk, and how to make its next operation fail.
    #[must_use]
    pub fn failing(mut self, make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnMut()>) + 'static) -> Self {
        self.suite.failing = Some(Box::new(make));
        self
    }

    /// Tries a change of the size, too: `make` gives a disk, and how to make what it lies on larger, which says the disk's
    /// new capacity.
    #[must_use]
    pub fn growing(mut self, make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnOnce() -> u64>) + 'static) -> Self {
        self.suite.growing = Some(Box::new(make));
        self
    }

    /// Tries a loss of power, too: `make` gives a disk, and how to take its power away, which gives the disk that comes back
    /// with what was stable.
    #[must_use]
    pub fn losing_power(
        mut self,
        make: impl Fn() -> (Box<dyn DiskBackend>, Box<dyn FnOnce() -> Box<dyn DiskBackend>>) + 'static,
    ) -> Self {
        self.suite.losing = Some(Box::new(make));
        self
    }

    /// How long nothing may happen while something is in flight. The default is 10 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.suite.patience = patience;
        self
    }

    /// Tries all rules.
    ///
    /// # Panics
    /// If the backend breaks one; the message names each that it breaks, and says how.
    pub fn run(&self) {
        let failures = self.failures();
        assert!(failures.is_empty(), "the backend breaks {} rules:\n{}", failures.len(), failures.join("\n"));
    }

    /// The rules that the backend breaks, each with how.
    pub fn failures(&self) -> Vec<String> {
        let broken = |(name, rule): &Rule| {
            let result = catch_unwind(AssertUnwindSafe(|| rule(&self.suite)));
            let result = result.unwrap_or_else(|_| Err("it panicked".to_owned()));
            result.err().map(|how| format!("{name}: {how}"))
        };
        promises::RULES.iter().chain(hazards::RULES).filter_map(broken).collect()
    }
}
