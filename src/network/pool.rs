//! Buffers that a guest lends its network, until other machines' frames are in them.

use std::collections::VecDeque;
use std::sync::OnceLock;

use super::checksum::Sum;
use crate::event::Waker;
use crate::memory::GuestRanges;
use crate::net::{Offloads, RxBuffer, RxReturn, VnetHeader};
use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};

/// So many bytes are summed up at once.
const SUMMED: usize = 2048;

/// What one guest has lent. Any thread takes from it, and puts frames in; only the card's own thread gives, and takes the frames out. The
/// lock is held for a few instructions at a time, never over the copy of a frame.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// The card's thread was woken, and has not looked since.
    woken: AtomicBool,
    waker: OnceLock<Waker>,
}

#[derive(Default)]
struct State {
    /// What was taken before the last recall must not come back.
    generation: u64,
    lent: VecDeque<RxBuffer>,
    filled: VecDeque<Filled>,
    /// Storage of frames that were delivered.
    free: Vec<Vec<RxBuffer>>,
}

/// A frame that is in its buffers.
pub(super) struct Filled {
    pub(super) buffers: Vec<RxBuffer>,
    pub(super) header: VnetHeader,
    pub(super) len: u64,
}

/// Buffers for one frame, in the hands of its sender.
pub(super) struct Landing {
    buffers: Vec<RxBuffer>,
    generation: u64,
}

impl Pool {
    pub(super) fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    /// What the guest copes with; `None` if it has lent nothing now.
    pub(super) fn offloads(&self) -> Option<Offloads> {
        lock(&self.state).lent.front().map(RxBuffer::offloads)
    }

    /// Takes buffers for a frame of so many bytes; `None` if there are too few.
    pub(super) fn take(&self, len: u64) -> Option<Landing> {
        let needed = len.saturating_add(RxBuffer::HEADROOM);
        let mut state = lock(&self.state);
        let mut buffers = state.free.pop().unwrap_or_default();
        let mut room = 0u64;
        while room < needed
            && let Some(buffer) = state.lent.pop_front()
        {
            let alone = !buffer.is_mergeable();
            room = room.saturating_add(buffer.data().len());
            buffers.push(buffer);
            if alone {
                break;
            }
        }
        if room >= needed {
            return Some(Landing { buffers, generation: state.generation });
        }
        while let Some(buffer) = buffers.pop() {
            state.lent.push_front(buffer);
        }
        state.free.push(buffers);
        None
    }

    /// Hands the card a frame that is in its buffers. If the card has recalled them meanwhile, they are dropped.
    pub(super) fn put(&self, landing: Landing, header: VnetHeader, len: u64) {
        let Landing { buffers, generation } = landing;
        let mut state = lock(&self.state);
        if state.generation == generation {
            state.filled.push_back(Filled { buffers, header, len });
        } else {
            // Dropping buffers takes a look at their card, which nobody is to wait for.
            drop(state);
        }
    }

    /// Wakes the card's thread, once for all that was put in since it last looked.
    pub(super) fn ring(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// The card's thread lends what is in `buffers`, and takes the frames that are there.
    pub(super) fn exchange(
        &self,
        buffers: &mut Vec<RxBuffer>,
        spent: &mut Vec<Vec<RxBuffer>>,
        filled: &mut VecDeque<Filled>,
    ) {
        // Before the look: whatever comes later rings again.
        self.woken.store(false, Ordering::SeqCst);
        let mut state = lock(&self.state);
        state.lent.extend(buffers.drain(..));
        state.free.append(spent);
        filled.append(&mut state.filled);
    }

    /// Gives back all that is lent and not filled, and drops what is filled.
    pub(super) fn recall(&self, back: &mut RxReturn) {
        let mut state = lock(&self.state);
        state.generation = state.generation.wrapping_add(1);
        let (lent, filled) = (std::mem::take(&mut state.lent), std::mem::take(&mut state.filled));
        drop(state);
        let filled = filled.into_iter().flat_map(|filled| filled.buffers);
        filled.chain(lent).for_each(|buffer| back.give(buffer));
    }
}

impl Landing {
    /// Writes bytes at `at` of the frame. What does not fit is left out: the frame is as long as was asked for.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        self.each(at, bytes.len(), |data, at, len| {
            let (part, tail) = rest.split_at(len.min(rest.len()));
            rest = tail;
            let _ = data.copy_in(at, part);
        });
    }

    /// Copies `len` bytes from `offset` of another guest's memory to `at` of the frame.
    pub(super) fn copy(&self, at: u64, from: &GuestRanges, offset: u64, len: usize) {
        let mut offset = offset;
        self.each(at, len, |data, at, len| {
            let _ = from.copy_to(offset, data, at, len);
            offset = offset.saturating_add(len as u64);
        });
    }

    /// Adds `len` bytes from `at` of the frame to a sum.
    pub(super) fn sum(&self, at: u64, len: usize, sum: &mut Sum) {
        let mut chunk = [0; SUMMED];
        let mut done = 0usize;
        while let Some(left @ 1..) = len.checked_sub(done) {
            let Some(bytes) = chunk.get_mut(..left.min(SUMMED)) else { return };
            self.read(at.saturating_add(done as u64), bytes);
            sum.add(bytes);
            done = done.saturating_add(bytes.len());
        }
    }

    fn read(&self, at: u64, bytes: &mut [u8]) {
        let len = bytes.len();
        let mut rest = bytes;
        self.each(at, len, |data, at, len| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            let _ = data.copy_out(at, part);
        });
    }

    /// Calls `each` for the parts of `len` bytes from `at` of the frame on: with a buffer, where in it a part begins, and its length.
    fn each(&self, at: u64, len: usize, mut each: impl FnMut(&GuestRanges, u64, usize)) {
        let (mut skip, mut left) = (at.saturating_add(RxBuffer::HEADROOM), len);
        for buffer in &self.buffers {
            let data = buffer.data();
            let Some(here @ 1..) = data.len().checked_sub(skip) else {
                skip = skip.saturating_sub(data.len());
                continue;
            };
            let part = usize::try_from(here).unwrap_or(usize::MAX).min(left);
            if part == 0 {
                break;
            }
            each(data, skip, part);
            skip = 0;
            left = left.saturating_sub(part);
        }
    }
}

#[cfg(all(test, shuttle))]
#[path = "pool_model_test.rs"]
mod models;
