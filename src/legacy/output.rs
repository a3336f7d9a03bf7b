//! Console output that the guest has written and the host has not taken yet: bounded, and never in a vCPU's way.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::output_limit::OutputLimit;
use super::output_reader::{CAPACITY, Counts, Listening, Place, Room};
use crate::config::RateLimit;
use crate::error::{Error, Result};
use crate::sys::{EventFd, lock};

/// How much a write of the guest is handled at once.
const PIECE: usize = 4096;

/// How long the end of a VM waits for a reader that takes none of the guest's last output.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// The same if the VM is stopped from outside, which must be over within 100 ms.
const LAST_PATIENCE_IN_A_HURRY: Duration = Duration::from_millis(40);

/// A byte buffer between the UART, which vCPU threads write, and its readers, which the I/O thread serves. Each reader takes all
/// bytes, at its own pace; one that falls behind by more than the buffer holds misses the oldest. Clones share the buffer.
#[derive(Clone)]
pub(crate) struct OutputBuffer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    drained: Condvar,
    /// Signalled when there is something to take, or will be.
    filled: EventFd,
}

struct State {
    /// From the oldest byte that a reader has yet to take.
    bytes: VecDeque<u8>,
    /// How many bytes were written in all.
    written: u64,
    readers: Vec<Place>,
    /// How many of them have yet to take the oldest byte. While there are any, nothing can be forgotten.
    at_oldest: usize,
    /// How much of it readers may take.
    limit: OutputLimit,
    /// How many missed bytes were spoken of.
    told: u64,
    /// When the first caller asked to hurry.
    hurried_since: Option<Instant>,
    /// The readers look by themselves soon, and need not be woken for each byte.
    silent: bool,
    /// The guest saw that it should wait.
    told_to_wait: bool,
    /// There will be no more.
    ended: bool,
}

/// What happens to bytes that the guest writes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// They are buffered for one reader at least, or nobody reads.
    Room,
    /// The buffer is full for all who read, and the guest is asked to wait.
    HoldsBack,
    /// It has been full for too long: bytes are lost.
    Drops,
}

/// One reader's place in the buffer.
pub(crate) struct OutputReader {
    shared: Arc<Shared>,
    index: usize,
}

impl OutputBuffer {
    /// A buffer that nobody reads: what is written is discarded.
    pub(crate) fn new() -> Result<Self> {
        let state = State {
            bytes: VecDeque::new(),
            written: 0,
            readers: Vec::new(),
            at_oldest: 0,
            limit: OutputLimit::default(),
            told: 0,
            hurried_since: None,
            silent: false,
            told_to_wait: false,
            ended: false,
        };
        let shared = Shared { state: Mutex::new(state), drained: Condvar::new(), filled: EventFd::new()? };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Limits what readers get from now on, all of them the same, or ends that. What waits is looked at again.
    pub(crate) fn limit(&self, rate: Option<RateLimit>) {
        let mut state = self.state();
        let written = state.written;
        state.limit.set(rate, written, Instant::now());
        drop(state);
        self.shared.filled.signal();
    }

    /// Lets readers take what the limit allows now. Says when it will allow more, if there is more.
    pub(crate) fn release(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let (oldest, written, is_last) = (state.oldest(), state.written, state.ended || state.hurried_since.is_some());
        // A guest that has ended prints no more, and what it has printed is bounded.
        if is_last { None } else { state.limit.release(oldest, written, now) }
    }

    /// How often output waited for the limit.
    pub(crate) fn limited(&self) -> u64 {
        self.state().limit.count()
    }

    /// Adds a reader of all that is written from now on.
    pub(crate) fn reader(&self, name: &str) -> OutputReader {
        let mut state = self.state();
        let place = Place::new(name.to_owned(), state.written);
        if place.needs(state.oldest()) {
            state.at_oldest = state.at_oldest.saturating_add(1);
        }
        state.readers.push(place);
        OutputReader { shared: Arc::clone(&self.shared), index: state.readers.len().saturating_sub(1) }
    }

    /// What became of the bytes, for each reader in the order in which they were added.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        let state = self.state();
        state.readers.iter().map(|place| place.counts_of(state.written)).collect()
    }

    /// How many bytes readers have missed, all together: because they were too slow, and because they failed.
    pub(crate) fn missed(&self) -> (u64, u64) {
        self.state().missed()
    }

    /// The same for somebody who speaks of it; `None` if others have spoken of all of it.
    pub(crate) fn tell_missed(&self) -> Option<(u64, u64)> {
        let mut state = self.state();
        let (dropped, lost) = state.missed();
        let all = dropped.saturating_add(lost);
        let told = std::mem::replace(&mut state.told, all);
        (all > told).then_some((dropped, lost))
    }

    /// Waits until everything was taken by all who read, or until nothing was for a second. After [`hurry`](Self::hurry) it
    /// ends soon in any case. After [`end`](Self::end) it also waits for the last attempt of those that failed.
    pub(crate) fn wait_drained(&self) {
        self.shared.filled.signal();
        let mut state = self.state();
        let begin = Instant::now();
        let mut last_progress = begin;
        while let left_over @ 1.. = state.left_over() {
            let (from, patience) = match state.hurried_since {
                // However steadily the reader takes, a caller in a hurry has a limit.
                Some(since) => (since.max(begin), LAST_PATIENCE_IN_A_HURRY),
                None => (last_progress, LAST_PATIENCE),
            };
            let left = patience.saturating_sub(from.elapsed());
            if left.is_zero() {
                return;
            }
            state = self.shared.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.left_over() < left_over {
                last_progress = Instant::now();
            }
        }
    }

    /// Cuts short every wait for the reader, present and later ones.
    pub(crate) fn hurry(&self) {
        self.state().hurried_since.get_or_insert_with(Instant::now);
        self.shared.drained.notify_all();
    }

    /// Says that nothing will be written any more: a reader that failed tries once more.
    pub(crate) fn end(&self) {
        if !std::mem::replace(&mut self.state().ended, true) {
            self.shared.filled.signal();
        }
    }

    /// Signalled when there is something to take after [`announce`](Self::announce), and when the buffer fills up.
    pub(crate) fn filled(&self) -> &EventFd {
        &self.shared.filled
    }

    /// Whether the guest writes and reads no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// How many bytes were written in all.
    pub(crate) fn written(&self) -> u64 {
        self.state().written
    }

    /// Until [`announce`](Self::announce) the caller looks by itself, and is woken only if the buffer fills up. A
    /// wakeup for each byte would cost the guest more than the byte.
    pub(crate) fn be_silent(&self) {
        self.state().silent = true;
    }

    /// Has the next byte announced, once. Says whether there is one already beyond the `seen` first ones, and then it is not.
    pub(crate) fn announce(&self, seen: u64) -> bool {
        let mut state = self.state();
        let has_news = state.written != seen;
        state.silent = has_news;
        has_news
    }

    /// Whether the guest was told to wait and still has to.
    pub(crate) fn keeps_waiting(&self) -> bool {
        let state = self.state();
        state.told_to_wait && state.pressure() == Pressure::HoldsBack
    }

    /// Whether the guest was told to wait and need not any more: it is to be told, once.
    pub(crate) fn releases(&self) -> bool {
        let mut state = self.state();
        let releases = state.told_to_wait && state.pressure() != Pressure::HoldsBack;
        state.told_to_wait &= !releases;
        releases
    }

    /// Whether the guest, which is told, should wait before it writes the next byte.
    pub(super) fn holds_back(&self) -> bool {
        let mut state = self.state();
        let holds_back = state.pressure() == Pressure::HoldsBack;
        let wakes = holds_back && !state.told_to_wait;
        state.told_to_wait |= holds_back;
        drop(state);
        if wakes {
            // Somebody is to tell it when waiting is over.
            self.shared.filled.signal();
        }
        holds_back
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl Write for OutputBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        let mut wakes = false;
        for piece in bytes.chunks(PIECE) {
            wakes |= state.push(piece);
        }
        drop(state);
        if wakes {
            self.shared.filled.signal();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    /// Adds at most [`PIECE`] bytes, and says whether the readers are to be woken.
    fn push(&mut self, piece: &[u8]) -> bool {
        let keeps = self.readers.iter().any(Place::keeps);
        self.written = self.written.saturating_add(piece.len() as u64);
        if keeps {
            let excess = self.bytes.len().saturating_add(piece.len()).saturating_sub(CAPACITY);
            self.bytes.drain(..excess.min(self.bytes.len()));
            self.bytes.extend(piece);
        }
        let (written, oldest) = (self.written, self.oldest());
        let (mut fills_up, mut at_oldest) = (false, 0usize);
        for place in &mut self.readers {
            fills_up |= place.advance(written, oldest, piece.len());
            at_oldest = at_oldest.saturating_add(place.needs(oldest).into());
        }
        self.at_oldest = at_oldest;
        let starts = keeps && !std::mem::replace(&mut self.silent, true);
        starts || fills_up
    }

    /// The position of the first byte in the buffer.
    fn oldest(&self) -> u64 {
        self.written.saturating_sub(self.bytes.len() as u64)
    }

    /// Forgets what nobody will take any more.
    fn trim(&mut self) {
        let needed = self.readers.iter().filter(|place| place.keeps()).map(|place| place.position).min();
        let count = needed.unwrap_or(self.written).saturating_sub(self.oldest());
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..count);
        let oldest = self.oldest();
        self.at_oldest = self.readers.iter().filter(|place| place.needs(oldest)).count();
    }

    /// Up to where readers may take.
    fn visible(&self) -> u64 {
        let is_last = self.ended || self.hurried_since.is_some();
        if is_last { self.written } else { self.limit.position(self.written) }
    }

    fn missed(&self) -> (u64, u64) {
        self.readers.iter().fold((0, 0), |(dropped, lost): (u64, u64), Place { counts, .. }| {
            (dropped.saturating_add(counts.dropped), lost.saturating_add(counts.lost))
        })
    }

    fn pressure(&self) -> Pressure {
        let rooms = || self.readers.iter().filter_map(Place::room);
        if rooms().any(|room| room == Room::Some) {
            Pressure::Room
        } else if rooms().any(|room| room == Room::NoneYet) {
            Pressure::HoldsBack
        } else if rooms().next().is_some() {
            Pressure::Drops
        } else {
            Pressure::Room
        }
    }

    /// How many bytes are still to reach those who read. In the end those that failed are among them, for their last attempt.
    fn left_over(&self) -> u64 {
        self.readers.iter().map(|place| place.left_over(self.written, self.ended)).fold(0, u64::saturating_add)
    }
}

impl OutputReader {
    /// Appends up to `most` bytes to `piece` and returns how many. They are under way until they are
    /// [delivered](Self::delivered), and lost if the reader is gone before.
    pub(crate) fn take(&self, piece: &mut Vec<u8>, most: usize) -> usize {
        let visible = lock(&self.shared.state).visible();
        self.change(0, |place, bytes, oldest| {
            let at =
                |position: u64| usize::try_from(position.saturating_sub(oldest)).unwrap_or(usize::MAX).min(bytes.len());
            let begin = at(place.position);
            let end = begin.saturating_add(most).min(at(visible)).max(begin);
            piece.extend(bytes.range(begin..end));
            let count = end.saturating_sub(begin);
            place.take(count);
            count
        })
    }

    /// Says that `count` of the bytes that were under way are where they belong.
    pub(crate) fn delivered(&self, count: usize) {
        self.change((), |place, _, _| place.delivered(count));
    }

    /// Says why bytes were not delivered.
    pub(crate) fn failed(&self, error: Error) {
        self.change((), |place, _, _| place.counts.last_error = Some(error));
    }

    /// Says why a file could not be renamed when it had grown too large.
    pub(crate) fn could_not_rotate(&self, error: Error) {
        self.change((), |place, _, _| {
            place.counts.failed_rotations = place.counts.failed_rotations.saturating_add(1);
            place.counts.last_error = Some(error);
        });
    }

    /// Says how it listens from now on.
    pub(crate) fn listen(&self, listening: Listening) {
        let written = lock(&self.shared.state).written;
        self.change((), |place, _, _| place.listen(listening, written));
    }

    /// Whether nothing will be written any more.
    pub(crate) fn is_last(&self) -> bool {
        lock(&self.shared.state).ended
    }

    /// Whether it has got everything that it will ever get.
    pub(crate) fn has_ended(&self) -> bool {
        let state = lock(&self.shared.state);
        state.ended && state.readers.get(self.index).is_none_or(|place| place.has_all(state.written))
    }

    fn change<R>(&self, otherwise: R, change: impl FnOnce(&mut Place, &VecDeque<u8>, u64) -> R) -> R {
        let mut state = lock(&self.shared.state);
        let oldest = state.oldest();
        let State { readers, bytes, at_oldest, .. } = &mut *state;
        let Some(place) = readers.get_mut(self.index) else { return otherwise };
        let needed = place.needs(oldest);
        let result = change(place, bytes, oldest);
        *at_oldest = at_oldest.saturating_sub(needed.into()).saturating_add(place.needs(oldest).into());
        if *at_oldest == 0 {
            state.trim();
        }
        drop(state);
        self.shared.drained.notify_all();
        result
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        self.listen(Listening::Gone);
    }
}

#[cfg(test)]
#[path = "output_test.rs"]
mod tests;
