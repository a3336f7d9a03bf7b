//! Console output that the guest has written and the host has not taken yet: bounded, and never in a vCPU's way.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::sys::{EventFd, lock};

/// Some hundred screens of text, as much as a guest writes in a tenth of a second.
const CAPACITY: usize = 64 << 10;

/// How long a full buffer holds the guest's transmitter back before it drops bytes instead. A reader that pauses for
/// less loses nothing; one that never reads costs the guest no more than this, once.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long the end of a VM waits for a reader that takes none of the guest's last output.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// The same if the VM is stopped from outside, which must be over within 100 ms.
const LAST_PATIENCE_IN_A_HURRY: Duration = Duration::from_millis(40);

/// A byte buffer between the UART, which vCPU threads write, and the sink, which the I/O thread drains. Clones share
/// it.
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
    bytes: VecDeque<u8>,
    /// No reader will ever take anything.
    discards: bool,
    /// When the first caller asked to hurry.
    hurried_since: Option<Instant>,
    /// The reader looks by itself soon, and need not be woken for each byte.
    silent: bool,
    /// When the buffer became full, if nothing was taken since.
    full_since: Option<Instant>,
    dropped: u64,
}

/// What happens to bytes that the guest writes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// They are buffered.
    Room,
    /// The buffer is full, and the guest is asked to wait.
    HoldsBack,
    /// The buffer has been full for too long: they are lost.
    Drops,
}

impl OutputBuffer {
    pub(crate) fn new() -> Result<Self> {
        let state = State {
            bytes: VecDeque::new(),
            discards: false,
            hurried_since: None,
            silent: false,
            full_since: None,
            dropped: 0,
        };
        let shared = Shared { state: Mutex::new(state), drained: Condvar::new(), filled: EventFd::new()? };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// From now on, written bytes are discarded at once.
    pub(crate) fn discard(&self) {
        let mut state = self.state();
        state.discards = true;
        state.bytes.clear();
        state.full_since = None;
        self.shared.drained.notify_all();
    }

    /// Waits until everything was taken, or until nothing was for a second. After [`hurry`](Self::hurry) it ends soon
    /// in any case.
    pub(crate) fn wait_drained(&self) {
        self.announce();
        let mut state = self.state();
        let begin = Instant::now();
        let mut last_progress = begin;
        while !state.bytes.is_empty() {
            let (from, patience) = match state.hurried_since {
                // However steadily the reader takes, a caller in a hurry has a limit.
                Some(since) => (since.max(begin), LAST_PATIENCE_IN_A_HURRY),
                None => (last_progress, LAST_PATIENCE),
            };
            let left = patience.saturating_sub(from.elapsed());
            if left.is_zero() {
                return;
            }
            let before = state.bytes.len();
            state = self.shared.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if state.bytes.len() < before {
                last_progress = Instant::now();
            }
        }
    }

    /// Cuts short every wait for the reader, present and later ones.
    pub(crate) fn hurry(&self) {
        self.state().hurried_since.get_or_insert_with(Instant::now);
        self.shared.drained.notify_all();
    }

    /// Signalled when there is something to take after there was nothing, unless the buffer is
    /// [silent](Self::be_silent).
    pub(crate) fn filled(&self) -> &EventFd {
        &self.shared.filled
    }

    /// Until [`announce`](Self::announce) the caller looks by itself, and is woken only if the buffer fills up. A
    /// wakeup for each byte would cost the guest more than the byte.
    pub(crate) fn be_silent(&self) {
        self.state().silent = true;
    }

    /// From now on the first byte is announced again, even one that is there already.
    pub(crate) fn announce(&self) {
        let mut state = self.state();
        state.silent = false;
        if !state.bytes.is_empty() {
            self.shared.filled.signal();
        }
    }

    /// Copies the oldest bytes without taking them, and returns how many.
    pub(crate) fn peek(&self, bytes: &mut [u8]) -> usize {
        self.state().bytes.iter().zip(bytes).map(|(from, to)| *to = *from).count()
    }

    /// Takes the oldest `count` bytes, and returns whether the buffer was full before.
    pub(crate) fn consume(&self, count: usize) -> bool {
        let mut state = self.state();
        let was_full = state.bytes.len() >= CAPACITY;
        let count = count.min(state.bytes.len());
        state.bytes.drain(..count);
        if count > 0 {
            state.full_since = None;
            self.shared.drained.notify_all();
        }
        was_full && count > 0
    }

    /// How many bytes were dropped because no reader took them.
    pub(crate) fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// What happens to the guest's next byte.
    pub(crate) fn pressure(&self) -> Pressure {
        match self.state().full_since {
            None => Pressure::Room,
            Some(since) if since.elapsed() < PATIENCE => Pressure::HoldsBack,
            Some(_) => Pressure::Drops,
        }
    }

    /// Whether the guest should wait before it writes the next byte.
    pub(super) fn holds_back(&self) -> bool {
        self.pressure() == Pressure::HoldsBack
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl Write for OutputBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.discards {
            return Ok(bytes.len());
        }
        let before = state.bytes.len();
        let room = CAPACITY.saturating_sub(before);
        state.bytes.extend(bytes.iter().take(room));
        state.dropped = state.dropped.saturating_add(bytes.len().saturating_sub(room) as u64);
        if state.bytes.len() >= CAPACITY {
            state.full_since.get_or_insert_with(Instant::now);
        }
        let starts = before == 0 && !state.silent;
        let fills_up = before < CAPACITY / 2 && state.bytes.len() >= CAPACITY / 2;
        drop(state);
        if starts || fills_up {
            self.shared.filled.signal();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(buffer: &OutputBuffer, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let count = buffer.peek(&mut bytes);
        bytes.truncate(count);
        buffer.consume(count);
        bytes
    }

    #[test]
    fn bytes_come_out_in_order_and_one_wakeup_announces_them() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.write_all(b"ab").unwrap();
        assert!(buffer.filled().take());
        buffer.write_all(b"c").unwrap();
        assert!(!buffer.filled().take());
        assert_eq!(take(&buffer, 10), b"abc");
        buffer.write_all(b"d").unwrap();
        assert!(buffer.filled().take());
    }

    #[test]
    fn a_silent_buffer_wakes_only_when_it_fills_up() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.be_silent();
        buffer.write_all(b"a").unwrap();
        assert!(!buffer.filled().take());
        buffer.write_all(&vec![b'x'; CAPACITY / 2]).unwrap();
        assert!(buffer.filled().take());
        buffer.announce();
        assert!(buffer.filled().take(), "what is there is announced");
        take(&buffer, CAPACITY);
        buffer.announce();
        assert!(!buffer.filled().take());
        buffer.write_all(b"b").unwrap();
        assert!(buffer.filled().take());
    }

    #[test]
    fn waiting_ends_when_everything_was_taken_or_a_caller_is_in_a_hurry() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.wait_drained();
        buffer.write_all(b"ab").unwrap();
        let reader = buffer.clone();
        let thread = std::thread::spawn(move || take(&reader, 2));
        buffer.wait_drained();
        assert_eq!(thread.join().unwrap(), b"ab");
        buffer.write_all(b"nobody reads this").unwrap();
        let begin = Instant::now();
        buffer.hurry();
        buffer.wait_drained();
        assert!((LAST_PATIENCE_IN_A_HURRY..LAST_PATIENCE).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }

    #[test]
    fn a_reader_that_takes_a_little_now_and_then_does_not_hold_up_a_caller_in_a_hurry() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.write_all(&[b'x'; 100]).unwrap();
        let reader = buffer.clone();
        let thread = std::thread::spawn(move || {
            while take(&reader, 1).len() == 1 {
                std::thread::sleep(LAST_PATIENCE_IN_A_HURRY / 4);
            }
        });
        buffer.hurry();
        let begin = Instant::now();
        buffer.wait_drained();
        assert!(begin.elapsed() < 10 * LAST_PATIENCE_IN_A_HURRY, "{:?}", begin.elapsed());
        buffer.discard();
        thread.join().unwrap();
    }

    #[test]
    fn a_buffer_without_a_reader_stays_empty() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.discard();
        buffer.write_all(&vec![b'x'; 2 * CAPACITY]).unwrap();
        assert!(!buffer.holds_back() && !buffer.filled().take());
        assert_eq!(buffer.peek(&mut [0; 4]), 0);
    }

    #[test]
    fn a_full_buffer_first_holds_back_and_then_drops() {
        let mut buffer = OutputBuffer::new().unwrap();
        buffer.write_all(&vec![b'x'; CAPACITY]).unwrap();
        assert!(buffer.holds_back());
        buffer.write_all(b"lost").unwrap();
        assert_eq!(buffer.dropped(), 4);
        std::thread::sleep(PATIENCE + Duration::from_millis(10));
        assert!(!buffer.holds_back());
        assert!(buffer.consume(1));
        assert!(!buffer.holds_back());
        buffer.write_all(b"y").unwrap();
        assert!(buffer.holds_back(), "patience starts anew after the reader took something");
        assert_eq!(take(&buffer, 2 * CAPACITY).len(), CAPACITY);
    }
}
