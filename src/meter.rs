//! Counters that one thread counts up, and any other reads at any time, without a lock.
//!
//! A VM's [`metrics`](crate::Vm::metrics) are read from these. They begin at 0 and only go up. They have 64 bits, and so would wrap
//! after centuries. Each of them is right by itself; two of them may be read at moments that differ a little.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counted up by one thread alone, which therefore needs no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// By the one thread.
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter of your own, for instance in a [`DiskBackend`](crate::block::DiskBackend): any thread counts it up. A clone is the same
/// counter.
///
/// ```
/// use vmcell::meter::{Counter, Meter};
///
/// let hits = Counter::new();
/// let mut meter = Meter::new();
/// meter.counter("cache_hits", &hits);
/// hits.add(2);
/// assert_eq!(meter.read()["cache_hits"], 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Makes a counter that stands at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to it. Never blocks.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns where it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Collects the counters of a backend and its layers, each by a name.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    counters: Vec<(String, Counter)>,
}

impl Meter {
    /// Makes one without counters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a counter. Several of one name count as one, their sum.
    pub fn counter(&mut self, name: impl Into<String>, counter: &Counter) {
        self.counters.push((name.into(), counter.clone()));
    }

    /// Reads all of them, by their names.
    pub fn read(&self) -> BTreeMap<String, u64> {
        let mut read = BTreeMap::new();
        for (name, counter) in &self.counters {
            let sum: &mut u64 = read.entry(name.clone()).or_default();
            *sum = sum.wrapping_add(counter.get());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_name_are_summed_up_and_others_are_not() {
        let (a, b, c) = (Counter::new(), Counter::new(), Counter::new());
        let mut meter = Meter::new();
        meter.counter("x", &a);
        meter.counter("y", &b);
        meter.counter("x", &c);
        a.add(1);
        b.add(10);
        c.clone().add(100);
        assert_eq!(meter.read(), [("x".to_owned(), 101), ("y".to_owned(), 10)].into());
    }
}
