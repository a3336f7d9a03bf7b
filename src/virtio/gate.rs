//! What vCPU threads and a device's owner have in common: published bytes one way, messages the other.
//!
//! A vCPU thread never calls the device. What it reads, the owner has published before; what it wants done, it says by a
//! message, and if it has to wait for the answer it waits alone. The owner never waits for the lock on the messages: it
//! comes back when whoever holds it has rung.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::config_space::ConfigSpace;
use super::device::DeviceState;
use super::failure::Failures;
use super::metrics::DeviceCounters;
use super::queue::{QueueConfig, QueueState};
use crate::error::Result;
use crate::event::Waker;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::thread::{self, Thread};
use crate::sys::{lock, lock_if_free};

/// How often one who waits for an answer looks whether the gate was closed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub(super) struct Gate {
    pub(super) config: ConfigSpace,
    messages: Mutex<Vec<Message>>,
    posted: AtomicBool,
    closed: AtomicBool,
    needs_reset: AtomicBool,
    owner: OnceLock<Waker>,
    pub(super) counters: DeviceCounters,
    pub(super) failures: Failures,
}

/// What the owner is asked for.
pub(super) enum Message {
    Activate(Plan),
    WriteConfig { offset: u64, data: [u8; 8], len: usize, done: Arc<Ticket<()>> },
    Reset(Arc<Ticket<()>>),
    Quiesce(Arc<Ticket<Result<()>>>),
    Resume,
    Save(Arc<Ticket<Result<Saved>>>),
}

/// With what a device is activated.
pub(super) struct Plan {
    pub(super) features: u64,
    pub(super) queues: Vec<Option<(QueueConfig, QueueState)>>,
    pub(super) state: Option<DeviceState>,
}

/// What an owner knows of the state of a device that stands still.
pub(super) struct Saved {
    /// By index; `None` for a queue that does not run.
    pub(super) queues: Vec<Option<QueueState>>,
    /// `None` before activation.
    pub(super) device: Option<DeviceState>,
}

/// Where one thread waits for another one's answer.
pub(super) struct Ticket<T> {
    answer: OnceLock<T>,
    asker: Thread,
}

impl<T> Ticket<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { answer: OnceLock::new(), asker: thread::current() })
    }

    /// Answers. Never blocks.
    pub(super) fn answer(self: Arc<Self>, value: T) {
        let _ = self.answer.set(value);
        let asker = self.asker.clone();
        // Before the other one wakes: it waits until the ticket is all its own.
        drop(self);
        asker.unpark();
    }
}

/// How a question ended.
pub(super) enum Outcome<T> {
    Answered(T),
    /// The gate was closed: nobody will answer.
    Closed,
    TimedOut,
}

impl Gate {
    pub(super) fn new(config: &[u8]) -> Self {
        Self {
            config: ConfigSpace::new(config),
            messages: Mutex::default(),
            posted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            owner: OnceLock::new(),
            counters: DeviceCounters::default(),
            failures: Failures::default(),
        }
    }

    /// The owner says how it is woken.
    pub(super) fn set_owner(&self, waker: Waker) {
        let _ = self.owner.set(waker);
    }

    /// Serves a vCPU's read. The owner hears of the first one since the driver was told of a change.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        if self.config.read(offset, data) {
            self.wake_owner();
        }
    }

    /// Leaves a message. Blocks for no longer than others take to leave theirs.
    pub(super) fn post(&self, message: Message) {
        lock(&self.messages).push(message);
        self.posted.store(true, Ordering::SeqCst);
        self.wake_owner();
    }

    /// Leaves a message and waits for its answer, until the gate is closed or `deadline` passes.
    pub(super) fn ask<T>(
        &self,
        deadline: Option<Instant>,
        message: impl FnOnce(Arc<Ticket<T>>) -> Message,
    ) -> Outcome<T> {
        let ticket = Ticket::new();
        self.post(message(Arc::clone(&ticket)));
        let mut ticket = ticket;
        loop {
            // The owner lets go of its half when it has answered.
            ticket = match Arc::try_unwrap(ticket) {
                Ok(ticket) => return ticket.answer.into_inner().map_or(Outcome::Closed, Outcome::Answered),
                Err(ticket) => ticket,
            };
            if self.is_closed() {
                return Outcome::Closed;
            }
            #[cfg(any(test, feature = "test-util"))]
            if self.owner.get().is_some_and(Waker::serve_inline) {
                continue;
            }
            let left = deadline.map_or(LOOK_AGAIN, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Outcome::TimedOut;
            }
            thread::park_timeout(left.min(LOOK_AGAIN));
        }
    }

    /// Moves the messages to `taken`, by the owner.
    pub(super) fn take_messages(&self, taken: &mut Vec<Message>) {
        if !self.posted.load(Ordering::Relaxed) || !self.posted.swap(false, Ordering::SeqCst) {
            return;
        }
        // Whoever holds it sets `posted` again, and wakes us, when it has let go.
        if let Some(mut messages) = lock_if_free(&self.messages) {
            taken.append(&mut messages);
        }
    }

    /// From now on the device gets no more chains, and nobody waits for it. Never blocks.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake_owner();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// By the owner: whether the device has failed, so that only a reset helps.
    pub(super) fn set_needs_reset(&self, needs_reset: bool) {
        self.needs_reset.store(needs_reset, Ordering::SeqCst);
    }

    fn wake_owner(&self) {
        if let Some(owner) = self.owner.get() {
            owner.wake();
        }
    }
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod tests;
