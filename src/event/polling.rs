//! For how long a thread looks for more to do before it sleeps: being woken costs more than looking, if more comes soon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a thread looks at the most, if nothing else is said.
const DEFAULT_LIMIT: Duration = Duration::from_micros(50);

/// The longest limit that can be set.
const MOST: Duration = Duration::from_millis(1);

/// What it begins with when looking seems worth while: an eighth of the limit.
const FIRST_STEP: u32 = 8;

/// What the host program sets, and what it is told.
pub(super) struct Settings {
    limit_nanos: AtomicU64,
    looks: AtomicU64,
    finds: AtomicU64,
    nanos: AtomicU64,
}

/// What looking for more to do has cost an I/O thread, and brought it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollingStats {
    /// How often the thread looked before it slept.
    pub looks: u64,
    /// How often it found something, and so did not sleep.
    pub finds: u64,
    /// How long it looked in all. For that time it used its CPU.
    pub time: Duration,
}

impl Settings {
    pub(super) fn new() -> Self {
        let limit_nanos = AtomicU64::new(nanos(DEFAULT_LIMIT));
        Self { limit_nanos, looks: AtomicU64::new(0), finds: AtomicU64::new(0), nanos: AtomicU64::new(0) }
    }

    pub(super) fn set_limit(&self, limit: Duration) {
        self.limit_nanos.store(nanos(limit.min(MOST)), Ordering::Relaxed);
    }

    fn limit(&self) -> Duration {
        Duration::from_nanos(self.limit_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn stats(&self) -> PollingStats {
        PollingStats {
            looks: self.looks.load(Ordering::Relaxed),
            finds: self.finds.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn count(&self, time: Duration, found: bool) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.finds.fetch_add(found.into(), Ordering::Relaxed);
        self.nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }
}

/// How long the thread looks now: learned from how long it had to wait before. One that waits for long does not look at all.
#[derive(Debug, Default)]
pub(super) struct Window(Duration);

impl Window {
    /// How long to look now.
    pub(super) fn length(&self, settings: &Settings) -> Duration {
        self.0.min(settings.limit())
    }

    /// Learns that something came after `waited`, with looking and without.
    pub(super) fn learn(&mut self, waited: Duration, settings: &Settings) {
        let limit = settings.limit();
        let least = limit / FIRST_STEP;
        self.0 = if waited < limit { (self.0 * 2).max(waited).clamp(least, limit) } else { self.0 / 2 };
        if self.0 < least {
            self.0 = Duration::ZERO;
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(10);
    const LATE: Duration = Duration::from_millis(1);

    #[test]
    fn a_thread_looks_longer_if_things_come_soon_and_not_at_all_if_they_do_not() {
        let settings = Settings::new();
        let mut window = Window::default();
        assert_eq!(window.length(&settings), Duration::ZERO);
        window.learn(SOON, &settings);
        assert_eq!(window.length(&settings), SOON);
        (0..9).for_each(|_| window.learn(SOON, &settings));
        assert_eq!(window.length(&settings), DEFAULT_LIMIT, "it is bounded");
        (0..9).for_each(|_| window.learn(LATE, &settings));
        assert_eq!(window.length(&settings), Duration::ZERO);
    }

    #[test]
    fn a_limit_of_zero_turns_it_off() {
        let settings = Settings::new();
        let mut window = Window::default();
        window.learn(SOON, &settings);
        settings.set_limit(Duration::ZERO);
        assert_eq!(window.length(&settings), Duration::ZERO);
        window.learn(Duration::ZERO, &settings);
        window.learn(SOON, &settings);
        assert_eq!(window.length(&settings), Duration::ZERO);
    }
}
