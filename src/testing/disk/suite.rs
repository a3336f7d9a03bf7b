//! What the rules for disk backends are tried on.

use std::time::Duration;

use super::bench::Bench;
use crate::block::DiskBackend;

/// A disk, and what can be done to it from outside.
pub(super) type Rigged<T> = Box<dyn Fn() -> (Box<dyn DiskBackend>, T)>;
/// Takes a disk's power away; gives the one that comes back.
type LosePower = Box<dyn FnOnce() -> Box<dyn DiskBackend>>;

/// A backend under test.
pub(super) struct Suite {
    pub(super) make: Box<dyn Fn() -> Box<dyn DiskBackend>>,
    /// With what makes the next operation fail.
    pub(super) failing: Option<Rigged<Box<dyn FnMut()>>>,
    /// With what makes it larger, and says how large.
    pub(super) growing: Option<Rigged<Box<dyn FnOnce() -> u64>>>,
    pub(super) losing: Option<Rigged<LosePower>>,
    pub(super) patience: Duration,
}

/// A rule by its name, and what finds out whether it is kept.
pub(super) type Rule = (&'static str, fn(&Suite) -> Result<(), String>);

impl Suite {
    /// A disk at work.
    pub(super) fn bench(&self) -> Result<Bench, String> {
        self.bench_on((self.make)())
    }

    /// A disk at work on a thread that lends no buffers.
    pub(super) fn bench_without_pool(&self) -> Result<Bench, String> {
        Bench::new((self.make)(), 0, self.patience)
    }

    pub(super) fn bench_on(&self, backend: Box<dyn DiskBackend>) -> Result<Bench, String> {
        Bench::new(backend, 8 << 20, self.patience)
    }
}
