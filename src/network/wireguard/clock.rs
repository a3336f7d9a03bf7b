//! When a peer is to be sent something: the timers of WireGuard's protocol (section 6 of its paper), by the time that they are told.

use std::time::{Duration, Instant};

use super::settings::Timing;
use crate::sys::random_bytes_now;

/// How much later than `rekey_timeout` a handshake is sent again at most, so that two peers do not go on doing so at once: 1/15 of it.
const JITTER_PART: u32 = 15;

/// A peer's timers. Each is a moment, or is not set.
#[derive(Debug, Default)]
pub(super) struct Clock {
    attempt: Option<Attempt>,
    last_initiation: Option<Instant>,
    /// Data came, and nothing was sent since.
    keepalive_at: Option<Instant>,
    /// Data was sent, and nothing came since.
    answer_at: Option<Instant>,
    persistent_at: Option<Instant>,
    persistent: Option<Duration>,
}

/// Handshakes that are being tried.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    ends: Instant,
    again: Instant,
}

/// What a peer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Initiation,
    Keepalive,
    /// There were handshakes enough without an answer.
    GivingUp,
}

impl Clock {
    pub(super) fn new(persistent_keepalive: u16, now: Instant) -> Self {
        let persistent = Some(Duration::from_secs(persistent_keepalive.into())).filter(|period| !period.is_zero());
        // The first message is due at once: the other side does not know where we are before.
        Self { persistent, persistent_at: persistent.map(|_| now), ..Self::default() }
    }

    pub(super) fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether a handshake may be sent now: not sooner after the last one than a lost one is sent again.
    pub(super) fn may_initiate(&self, timing: &Timing, now: Instant) -> bool {
        self.last_initiation.is_none_or(|last| after(last, timing.rekey_timeout) <= now)
    }

    pub(super) fn initiated(&mut self, timing: &Timing, now: Instant) {
        let again = after(now, timing.rekey_timeout.saturating_add(jitter(timing.rekey_timeout)));
        let ends = self.attempt.map_or(after(now, timing.rekey_attempt), |attempt| attempt.ends);
        self.attempt = Some(Attempt { ends, again });
        self.last_initiation = Some(now);
    }

    pub(super) fn established(&mut self) {
        self.attempt = None;
        self.last_initiation = None;
    }

    pub(super) fn sent_data(&mut self, timing: &Timing, now: Instant) {
        let patience = timing.keepalive.saturating_add(timing.rekey_timeout);
        self.answer_at.get_or_insert(after(now, patience));
    }

    pub(super) fn sent_any(&mut self, now: Instant) {
        self.keepalive_at = None;
        self.traversed(now);
    }

    pub(super) fn received_data(&mut self, timing: &Timing, now: Instant) {
        self.keepalive_at.get_or_insert(after(now, timing.keepalive));
    }

    pub(super) fn received_any(&mut self, now: Instant) {
        self.answer_at = None;
        self.traversed(now);
    }

    fn traversed(&mut self, now: Instant) {
        self.persistent_at = self.persistent.map(|period| after(now, period));
    }

    /// The next thing that is due at `now`; it is not due any more then.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if let Some(attempt) = &mut self.attempt {
            if attempt.ends <= now {
                self.attempt = None;
                self.answer_at = None;
                return Some(Due::GivingUp);
            }
            if attempt.again <= now {
                // Sending it sets when it is sent again.
                attempt.again = attempt.ends;
                return Some(Due::Initiation);
            }
        }
        if take(&mut self.answer_at, now) {
            return Some(Due::Initiation);
        }
        if take(&mut self.keepalive_at, now) {
            return Some(Due::Keepalive);
        }
        if take(&mut self.persistent_at, now) {
            self.traversed(now);
            return Some(Due::Keepalive);
        }
        None
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let attempt = self.attempt.map(|attempt| attempt.again.min(attempt.ends));
        [attempt, self.answer_at, self.keepalive_at, self.persistent_at].into_iter().flatten().min()
    }
}

fn take(moment: &mut Option<Instant>, now: Instant) -> bool {
    moment.take_if(|at| *at <= now).is_some()
}

/// A moment that no clock reaches stays the present one.
pub(super) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

fn jitter(timeout: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without random bytes there is no jitter.
    let _ = random_bytes_now(&mut bytes);
    let most = timeout.checked_div(JITTER_PART).unwrap_or_default();
    let share = u64::from(u32::from_le_bytes(bytes)).saturating_mul(u64::try_from(most.as_nanos()).unwrap_or(0));
    Duration::from_nanos(share >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn handshakes_are_tried_again_until_they_are_given_up() {
        let (timing, start) = (Timing::default(), Instant::now());
        let mut clock = Clock::new(0, start);
        assert_eq!((clock.next(), clock.due(start)), (None, None));
        clock.initiated(&timing, start);
        let mut sent = 1;
        loop {
            let now = clock.next().unwrap();
            match clock.due(now).unwrap() {
                Due::Initiation => {
                    assert!(clock.may_initiate(&timing, now));
                    assert!(!clock.may_initiate(&timing, now - SECOND));
                    clock.initiated(&timing, now);
                    sent += 1;
                }
                Due::GivingUp => break assert_eq!(now, start + 90 * SECOND),
                Due::Keepalive => panic!(),
            }
        }
        assert!((16..=18).contains(&sent), "{sent} with a jitter of up to a third of a second");
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn data_without_an_answer_makes_a_handshake_and_data_that_came_a_keepalive() {
        let (timing, start) = (Timing::default(), Instant::now());
        let mut clock = Clock::new(0, start);
        clock.sent_data(&timing, start);
        clock.sent_data(&timing, start + SECOND);
        assert_eq!(clock.next(), Some(start + 15 * SECOND));
        clock.received_any(start);
        assert_eq!(clock.next(), None);
        clock.sent_data(&timing, start);
        assert_eq!(clock.due(start + 14 * SECOND), None);
        assert_eq!(clock.due(start + 15 * SECOND), Some(Due::Initiation));
        clock.received_data(&timing, start);
        clock.received_data(&timing, start + SECOND);
        assert_eq!(clock.due(start + 10 * SECOND), Some(Due::Keepalive));
        clock.received_data(&timing, start);
        clock.sent_any(start);
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn a_persistent_keepalive_is_due_at_once_and_after_each_silence() {
        let (start, period) = (Instant::now(), 25 * SECOND);
        let mut clock = Clock::new(25, start);
        assert_eq!(clock.due(start), Some(Due::Keepalive));
        assert_eq!(clock.next(), Some(start + period));
        clock.received_any(start + SECOND);
        assert_eq!(clock.next(), Some(start + SECOND + period));
        assert_eq!(clock.due(start + period), None);
        assert_eq!(clock.due(start + SECOND + period), Some(Due::Keepalive));
    }
}
