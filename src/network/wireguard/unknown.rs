//! Handshakes of peers that are not known: the host program is asked about each, at its leisure, and the handshake is kept meanwhile.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::clock::after;
use super::key::PublicKey;
use super::settings::TunnelLimits;
use super::sources::source;

/// The length of the first message of a handshake.
pub(super) const INITIATION_LEN: usize = 148;
/// The most keys that are remembered as refused.
const MAX_REFUSED: usize = 1024;
/// The most questions of a second, whatever the limit.
const MAX_ASKED: usize = 4096;
/// One sender has this part of the questions, so that it takes several to keep all others out.
const SHARE: usize = 8;
/// How long an answer is waited for: by then, the peer has begun another handshake.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A handshake that waits for an answer.
pub(super) struct Held {
    pub(super) datagram: [u8; INITIATION_LEN],
    pub(super) from: SocketAddr,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Unknown {
    held: HashMap<PublicKey, Held>,
    /// Until when a key is not asked about, in the order in which that ends.
    refused: HashMap<PublicKey, Instant>,
    order: VecDeque<(Instant, PublicKey)>,
    second: Option<Instant>,
    /// Because of whose handshakes the host program was asked in this second.
    asked: Vec<[u8; 8]>,
}

/// What one sender has of a limit.
fn share(limit: usize) -> usize {
    limit.div_ceil(SHARE)
}

impl Unknown {
    /// Keeps a handshake; says whether the host program is to be asked.
    pub(super) fn ask(
        &mut self,
        key: PublicKey,
        datagram: &[u8],
        from: SocketAddr,
        limits: &TunnelLimits,
        now: Instant,
    ) -> bool {
        self.expire(now);
        let Some(datagram) = datagram.first_chunk().filter(|_| datagram.len() == INITIATION_LEN) else { return false };
        let held = Held { datagram: *datagram, from, until: after(now, ANSWER_WITHIN) };
        if let Some(earlier) = self.held.get_mut(&key) {
            // The later one is the one that the peer waits for an answer to. An impostor's that takes its place costs the peer a retry.
            *earlier = Held { until: earlier.until, ..held };
            return false;
        }
        let source = source(from.ip());
        let waiting = self.held.values().filter(|held| self::source(held.from.ip()) == source).count();
        if self.refused.contains_key(&key)
            || self.held.len() >= limits.questions
            || waiting >= share(limits.questions)
            || !self.may_ask(source, limits, now)
        {
            return false;
        }
        self.held.insert(key, held);
        true
    }

    fn may_ask(&mut self, source: [u8; 8], limits: &TunnelLimits, now: Instant) -> bool {
        if self.second.is_none_or(|second| after(second, Duration::from_secs(1)) <= now) {
            self.second = Some(now);
            self.asked.clear();
        }
        let most = usize::try_from(limits.questions_a_second).unwrap_or(usize::MAX);
        let of_source = self.asked.iter().filter(|asked| **asked == source).count();
        if self.asked.len() >= most.min(MAX_ASKED) || of_source >= share(most) {
            return false;
        }
        self.asked.push(source);
        true
    }

    /// The host program knows the peer, or it could not be asked: the handshake that waits, if it still does.
    pub(super) fn take(&mut self, key: &PublicKey) -> Option<Held> {
        self.held.remove(key)
    }

    /// The host program does not know the peer, and is not asked again soon.
    pub(super) fn refuse(&mut self, key: &PublicKey, limits: &TunnelLimits, now: Instant) {
        self.held.remove(key);
        if self.order.len() >= MAX_REFUSED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.refused.remove(&oldest);
        }
        let until = after(now, limits.refused_for);
        if self.refused.insert(*key, until).is_none() {
            self.order.push_back((until, *key));
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, key)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            self.refused.remove(&key);
        }
        self.held.retain(|_, held| held.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn ask(unknown: &mut Unknown, byte: u8, limits: &TunnelLimits, now: Instant) -> bool {
        unknown.ask(key(byte), &[byte; INITIATION_LEN], ([127, 0, 0, byte], 1).into(), limits, now)
    }

    #[test]
    fn one_sender_takes_no_more_than_its_share_of_the_questions() {
        let limits = TunnelLimits { questions: 16, questions_a_second: 24, ..TunnelLimits::default() };
        let (now, mut unknown) = (Instant::now(), Unknown::default());
        let from = |unknown: &mut Unknown, byte, host: u8, now| {
            unknown.ask(key(byte), &[byte; INITIATION_LEN], ([10, 0, 0, host], u16::from(byte)).into(), &limits, now)
        };
        assert!(from(&mut unknown, 1, 1, now) && from(&mut unknown, 2, 1, now));
        assert!(!from(&mut unknown, 3, 1, now), "two of its own wait");
        assert!(from(&mut unknown, 4, 2, now), "another one is asked about");
        unknown.take(&key(1));
        assert!(from(&mut unknown, 5, 1, now));
        unknown.take(&key(2));
        assert!(!from(&mut unknown, 6, 1, now), "three in this second");
        assert!(from(&mut unknown, 6, 1, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_peer_is_asked_about_once_and_not_again_soon_after_it_was_refused() {
        let (limits, now, mut unknown) = (TunnelLimits::default(), Instant::now(), Unknown::default());
        assert!(ask(&mut unknown, 1, &limits, now));
        assert!(!ask(&mut unknown, 1, &limits, now));
        assert_eq!(unknown.take(&key(1)).unwrap().datagram, [1; INITIATION_LEN]);
        assert!(unknown.take(&key(1)).is_none());
        assert!(ask(&mut unknown, 1, &limits, now));
        unknown.refuse(&key(1), &limits, now);
        assert!(!ask(&mut unknown, 1, &limits, now + limits.refused_for / 2));
        assert!(ask(&mut unknown, 1, &limits, now + limits.refused_for));
    }

    #[test]
    fn questions_are_bounded_at_once_in_a_second_and_in_how_long_they_wait() {
        let limits = TunnelLimits { questions: 2, questions_a_second: 3, ..TunnelLimits::default() };
        let (now, mut unknown) = (Instant::now(), Unknown::default());
        assert!(ask(&mut unknown, 1, &limits, now) && ask(&mut unknown, 2, &limits, now));
        assert!(!ask(&mut unknown, 3, &limits, now), "two wait");
        unknown.take(&key(1));
        assert!(ask(&mut unknown, 3, &limits, now));
        unknown.take(&key(2));
        assert!(!ask(&mut unknown, 4, &limits, now), "three in this second");
        assert!(ask(&mut unknown, 4, &limits, now + Duration::from_secs(1)));
        let later = now + ANSWER_WITHIN + Duration::from_secs(1);
        assert!(ask(&mut unknown, 5, &limits, later) && ask(&mut unknown, 6, &limits, later));
        (0..=255).for_each(|byte| unknown.refuse(&key(byte), &limits, later));
        assert_eq!((unknown.refused.len(), unknown.order.len(), unknown.held.len()), (256, 256, 0));
    }
}
