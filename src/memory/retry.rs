//! When to ask the kernel again: for what it refused to take, and about what it has had for long.

use std::io;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// How often in a row the kernel may refuse for a reason that does not pass.
const MOST_REFUSALS: u32 = 4;

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    AskAgain,
    GiveUp,
}

/// The pauses between attempts that the kernel refuses.
#[derive(Default)]
pub(super) struct Pauses {
    /// In a row, for whatever reason.
    refusals: u32,
    /// In a row, for reasons that do not pass.
    lasting: u32,
    next: Option<Instant>,
}

impl Pauses {
    /// Whether it is time for an attempt. Costs nothing if the last one succeeded.
    pub(super) fn are_over(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    pub(super) fn left(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn refused(&mut self, error: &io::Error) -> Verdict {
        self.lasting = if passes(error) { 0 } else { self.lasting.saturating_add(1) };
        let pause = FIRST_PAUSE.saturating_mul(1 << self.refusals.min(16)).min(LONGEST_PAUSE);
        self.refusals = self.refusals.saturating_add(1);
        self.next = Instant::now().checked_add(pause);
        if self.lasting < MOST_REFUSALS { Verdict::AskAgain } else { Verdict::GiveUp }
    }
}

/// Whether the kernel was interrupted, or is short of something: `EINTR`, `EAGAIN`, `EBUSY`, `ENOMEM`.
fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, ResourceBusy, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock | ResourceBusy | OutOfMemory)
}

/// A coarse clock: something is old if it was begun a whole period ago or longer.
#[derive(Default)]
pub(super) struct Periods {
    present: u32,
    next: Option<Instant>,
}

impl Periods {
    pub(super) const LENGTH: Duration = Duration::from_millis(100);

    pub(super) fn present(&self) -> u32 {
        self.present
    }

    pub(super) fn is_old(&self, period: u32) -> bool {
        self.present.wrapping_sub(period) >= 2
    }

    /// Whether another period begins at this moment.
    pub(super) fn turn_over(&mut self, now: Instant) -> bool {
        let is_over = self.next.is_none_or(|next| next <= now);
        if is_over {
            self.present = self.present.wrapping_add(1);
            self.next = now.checked_add(Self::LENGTH);
        }
        is_over
    }

    pub(super) fn left(&self) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_refusal_that_passes_is_asked_about_again_and_again_with_longer_pauses() {
        let mut pauses = Pauses::default();
        assert!(pauses.are_over());
        let mut before = Duration::ZERO;
        for number in [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM].repeat(10) {
            assert_eq!(pauses.refused(&error(number)), Verdict::AskAgain);
            assert!(pauses.left() <= LONGEST_PAUSE);
            before = before.max(pauses.left());
        }
        assert!(before > FIRST_PAUSE * 8 && !pauses.are_over());
        pauses.succeeded();
        assert!(pauses.are_over());
    }

    #[test]
    fn a_refusal_that_lasts_is_given_up_after_a_few() {
        for number in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EBADF, libc::EINVAL] {
            let mut pauses = Pauses::default();
            let asked = (1..).find(|_| pauses.refused(&error(number)) == Verdict::GiveUp);
            assert_eq!(asked, Some(MOST_REFUSALS), "{number}");
        }
    }

    #[test]
    fn what_was_begun_a_period_ago_is_old() {
        let (mut periods, now) = (Periods::default(), Instant::now());
        let begun = periods.present();
        assert!(periods.turn_over(now) && !periods.turn_over(now));
        assert!(!periods.is_old(begun), "it may have been begun a moment ago");
        assert!(periods.turn_over(now + Periods::LENGTH));
        assert!(periods.is_old(begun) && !periods.is_old(periods.present()));
    }
}
