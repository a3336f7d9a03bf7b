//! When snapshots are due, and which of them are to go: from times alone, whatever the host's clock does.
//!
//! The clock may jump. So a snapshot is due no earlier than half of its time after the last one was taken by this process, however the clock
//! stands; one that was made in the future counts as made long ago; and a snapshot goes only once as many newer ones are there as
//! there are to be. A clock that jumps by a year takes one snapshot and removes one, as a day does.

use std::time::Duration;

use crate::app::Snapshots;

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970, as the host has them: may jump.
    pub wall: u64,
    /// Since the process began: does not jump.
    pub running: Duration,
}

/// Whether a snapshot is to be taken. `last` is when the last one was made by the clock, and `taken` when this process took one.
pub fn is_due(wanted: Snapshots, last: Option<u64>, taken: Option<Duration>, now: Moment) -> bool {
    let has_waited =
        taken.is_none_or(|taken| now.running.saturating_sub(taken) >= wanted.every.checked_div(2).unwrap_or_default());
    let is_over = last.is_none_or(|last| last > now.wall || now.wall.saturating_sub(last) >= wanted.every.as_secs());
    has_waited && is_over
}

/// Which of these snapshots are to go: their numbers and when they were made, the oldest first, all by the clock.
pub fn expired(wanted: Snapshots, made: &[(u32, u64)], now: Moment) -> Vec<u32> {
    let there_are_to_be = wanted.keep.as_secs().div_ceil(wanted.every.as_secs().max(1));
    let mut newest_first = made.iter().rev().zip(0_u64..);
    let mut gone = Vec::new();
    // One is older than those after it, whatever the clock said when it was made.
    let mut latest = now.wall;
    for ((number, created), newer) in &mut newest_first {
        latest = latest.min(*created);
        if newer >= there_are_to_be && now.wall.saturating_sub(latest) >= wanted.keep.as_secs() {
            gone.push(*number);
        }
    }
    gone.reverse();
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;

    fn daily() -> Snapshots {
        Snapshots { every: Duration::from_secs(DAY), keep: Duration::from_secs(5 * DAY) }
    }

    fn at(wall: u64, running: u64) -> Moment {
        Moment { wall, running: Duration::from_secs(running) }
    }

    /// A host of which each step is so many seconds long, during which its clock goes on by so many; what was made is returned.
    struct Host {
        made: Vec<(u32, u64)>,
        taken: Option<Duration>,
        now: Moment,
        next: u32,
    }

    impl Host {
        fn new() -> Self {
            Self { made: Vec::new(), taken: None, now: at(YEAR * 50, 0), next: 1 }
        }

        /// How many were taken, and how many went.
        fn step(&mut self, seconds: u64, clock: i64) -> (u32, usize) {
            self.now.running += Duration::from_secs(seconds);
            self.now.wall = self.now.wall.saturating_add_signed(clock);
            let last = self.made.last().map(|(_, created)| *created);
            let is_due = is_due(daily(), last, self.taken, self.now);
            if is_due {
                self.made.push((self.next, self.now.wall));
                (self.next, self.taken) = (self.next + 1, Some(self.now.running));
            }
            let gone = expired(daily(), &self.made, self.now);
            self.made.retain(|(number, _)| !gone.contains(number));
            (u32::from(is_due), gone.len())
        }

        fn hours(&mut self, count: u32) -> (u32, usize) {
            let steps = (0..count).map(|_| self.step(3600, 3600));
            steps.fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1))
        }
    }

    #[test]
    fn one_is_taken_a_day_and_five_are_kept() {
        let mut host = Host::new();
        assert_eq!(host.hours(1), (1, 0), "the first one at once");
        assert_eq!(host.hours(24 * 4), (4, 0));
        assert_eq!(host.hours(24 * 30), (30, 30));
        assert_eq!(host.made.len(), 5);
        let oldest = host.now.wall - host.made[0].1;
        assert!((4 * DAY..=5 * DAY).contains(&oldest), "{oldest}");
    }

    #[test]
    fn a_jump_forward_removes_no_more_than_a_day_does() {
        let mut host = Host::new();
        host.hours(24 * 10);
        let before = host.made.clone();
        assert_eq!(host.step(1, YEAR.cast_signed()), (1, 1));
        assert_eq!(host.made[..4], before[1..]);
        assert_eq!(host.hours(10), (0, 0));
        // And back again.
        assert_eq!(host.step(1, -YEAR.cast_signed()), (0, 0), "so soon after the last one");
        assert_eq!(host.hours(24), (1, 1));
        assert_eq!(host.hours(24 * 10), (10, 10));
        assert_eq!(host.made.len(), 5);
    }

    #[test]
    fn a_jump_back_does_not_stop_snapshots() {
        let mut host = Host::new();
        host.hours(24 * 10);
        host.step(1, -(20 * YEAR).cast_signed());
        assert_eq!(host.hours(24 * 5).0, 5);
        assert!(host.made.iter().all(|(_, created)| *created <= host.now.wall), "{:?}", host.made);
        assert_eq!(host.hours(24 * 5), (5, 5));
    }

    #[test]
    fn a_clock_that_jumps_at_each_step_removes_no_more_than_time_does() {
        let mut host = Host::new();
        host.hours(24 * 10);
        let (mut taken, mut gone) = (0, 0);
        for step in 0..24 {
            let jump = if step % 2 == 0 { YEAR.cast_signed() } else { -YEAR.cast_signed() };
            let (one, went) = host.step(3600, jump);
            (taken, gone) = (taken + one, gone + went);
        }
        assert!(taken <= 3 && gone <= 3, "{taken} {gone}");
        assert!(host.made.len() >= 5);
    }

    #[test]
    fn what_was_off_for_long_loses_nothing_when_it_comes_back() {
        let mut host = Host::new();
        host.hours(24 * 10);
        // Another process.
        (host.taken, host.now.wall) = (None, host.now.wall + YEAR);
        assert_eq!(host.step(1, 1), (1, 1));
        assert_eq!(host.made.len(), 5);
        assert_eq!(host.hours(24 * 4), (4, 4));
        assert!(host.made.iter().all(|(_, created)| host.now.wall - created <= 5 * DAY));
    }

    #[test]
    fn a_shorter_time_removes_what_is_over_but_never_the_newest() {
        let made: Vec<(u32, u64)> = (1..=10).map(|day| (day, u64::from(day) * DAY)).collect();
        let now = at(10 * DAY, 0);
        let of = |days: u64| Snapshots { keep: Duration::from_secs(days * DAY), ..daily() };
        assert_eq!(expired(of(2), &made, now), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(expired(of(1), &made, at(YEAR, 0)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(expired(of(1), &made[9..], at(YEAR, 0)).is_empty());
        assert!(expired(of(1), &[], at(YEAR, 0)).is_empty());
    }
}
