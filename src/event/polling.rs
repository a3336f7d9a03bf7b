//! For how long a thread looks for more to do before it sleeps: being woken costs more than looking, if more comes soon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a thread looks at the most, if nothing else is said.
const DEFAULT_LIMIT: Duration = Duration::from_micros(50);

/// The longest limit that can be set.
const MOST: Duration = Duration::from_millis(1);

/// If it looks at all, it does so for this part of the limit at least.
const FIRST_STEP: u32 = 8;

/// How often a thread sleeps in a row after looking in vain, at the most.
const MOST_SLEEPS: u32 = 1023;

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

/// How long the thread looks now: learned from how it went before.
///
/// It looks if something came soon when it slept, and goes on looking as long as it finds something. If it finds nothing, it
/// sleeps for some times before it tries again, and for longer each time: who should have given it something to do may be waiting
/// for this very CPU.
#[derive(Debug, Default)]
pub(super) struct Window {
    length: Duration,
    /// How often it sleeps before it looks again.
    sleeps: u32,
    /// How often it slept after the last vain look.
    penalty: u32,
}

impl Window {
    /// How long to look now.
    pub(super) fn length(&self, settings: &Settings) -> Duration {
        self.length.min(settings.limit())
    }

    /// Learns that something was found after looking for so long.
    pub(super) fn found_after(&mut self, time: Duration, settings: &Settings) {
        let limit = settings.limit();
        let shorter = self.length.saturating_mul(3).checked_div(4).unwrap_or_default();
        self.length = bounded(shorter.max(time.saturating_mul(2)), limit);
        self.penalty = self.penalty.saturating_sub(1);
    }

    /// Learns that nothing was found.
    pub(super) fn found_nothing(&mut self) {
        self.length = Duration::ZERO;
        self.penalty = self.penalty.saturating_mul(2).saturating_add(1).min(MOST_SLEEPS);
        self.sleeps = self.penalty;
    }

    /// Learns that something came after the thread slept for so long, without looking before.
    pub(super) fn slept_for(&mut self, time: Duration, settings: &Settings) {
        let limit = settings.limit();
        if time >= limit {
            return;
        }
        self.sleeps = self.sleeps.saturating_sub(1);
        if self.sleeps == 0 {
            self.length = bounded(time.saturating_mul(2), limit);
        }
    }
}

/// As long as it makes sense to look, if the limit is this.
fn bounded(length: Duration, limit: Duration) -> Duration {
    length.clamp(limit.checked_div(FIRST_STEP).unwrap_or_default(), limit)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SOON: Duration = Duration::from_micros(10);
    const LATE: Duration = Duration::from_millis(1);

    #[test]
    fn a_thread_looks_if_things_come_soon_and_goes_on_as_long_as_it_finds_them() {
        let settings = Settings::new();
        let mut window = Window::default();
        window.slept_for(LATE, &settings);
        assert_eq!(window.length(&settings), Duration::ZERO);
        window.slept_for(SOON, &settings);
        assert_eq!(window.length(&settings), SOON * 2);
        (0..9).for_each(|_| window.found_after(Duration::from_micros(1), &settings));
        assert_eq!(window.length(&settings), DEFAULT_LIMIT / FIRST_STEP, "no longer than it takes");
        window.found_after(DEFAULT_LIMIT, &settings);
        assert_eq!(window.length(&settings), DEFAULT_LIMIT, "it is bounded");
    }

    #[test]
    fn a_thread_that_looks_in_vain_sleeps_more_and_more_often_before_it_tries_again() {
        let settings = Settings::new();
        let mut window = Window::default();
        let mut sleeps_until_it_looks = || {
            window.found_nothing();
            let count = (1..).find(|_| {
                window.slept_for(SOON, &settings);
                !window.length(&settings).is_zero()
            });
            count.unwrap()
        };
        let counts: Vec<u32> = (0..12).map(|_| sleeps_until_it_looks()).collect();
        assert_eq!(counts[..5], [1, 3, 7, 15, 31]);
        assert_eq!(counts[11], MOST_SLEEPS);
        (0..MOST_SLEEPS).for_each(|_| window.found_after(SOON, &settings));
        assert_eq!((window.penalty, window.length(&settings)), (0, SOON * 2));
    }

    #[test]
    fn a_limit_of_zero_turns_it_off() {
        let settings = Settings::new();
        let mut window = Window::default();
        window.slept_for(SOON, &settings);
        settings.set_limit(Duration::ZERO);
        assert_eq!(window.length(&settings), Duration::ZERO);
        window.slept_for(Duration::ZERO, &settings);
        assert_eq!(window.length(&settings), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_thread_looks_for_no_longer_than_the_limit_whatever_happened(
            limit in 0..1500u64,
            steps in vec((0..3u8, 0..3000u64), 0..60),
        ) {
            let settings = Settings::new();
            settings.set_limit(Duration::from_micros(limit));
            let limit = Duration::from_micros(limit).min(MOST);
            let mut window = Window::default();
            for (step, time) in steps {
                let time = Duration::from_micros(time);
                match step {
                    0 => window.found_after(time, &settings),
                    1 => window.found_nothing(),
                    _ => window.slept_for(time, &settings),
                }
                let length = window.length(&settings);
                prop_assert!(length <= limit);
                prop_assert!(length.is_zero() || length >= limit / FIRST_STEP);
            }
        }

        #[test]
        fn looking_in_vain_costs_ever_less(naps in vec(0..200u64, 1..3000)) {
            let settings = Settings::new();
            let mut window = Window::default();
            let (mut looks, mut sleeps) = (0u32, 0u32);
            for nap in naps {
                if !window.length(&settings).is_zero() {
                    looks += 1;
                    window.found_nothing();
                }
                window.slept_for(Duration::from_micros(nap), &settings);
                sleeps += 1;
            }
            // 1, 3, 7, 15 and so on sleeps lie between two looks, and MOST_SLEEPS at last.
            prop_assert!(looks <= sleeps.ilog2() + 1 + sleeps / MOST_SLEEPS, "{} looks in {} sleeps", looks, sleeps);
        }
    }
}
