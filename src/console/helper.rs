//! A thread that waits for a stream where no other may: a terminal that is full, a file whose storage is slow.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Waker;
use crate::sys::{ThreadHandle, lock, name_of_helper, spawn};

/// How long the thread stays when it has nothing to do. A console is used now and then, and a program may have a thousand.
const LINGER: Duration = Duration::from_secs(2);

/// How long the end of a console waits for what the thread does. After that it is left to itself, and ends when that is done.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many threads that were left to themselves there may be in a process.
const MOST_ABANDONED: usize = 64;

static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// Returns how many threads in this process still wait for a console's terminal, device or file although its VM is gone. Each
/// keeps that open until it is done waiting. While there are 64, consoles that need such a thread take no more output or input.
/// Never blocks.
pub fn abandoned_console_threads() -> usize {
    ABANDONED.load(Ordering::SeqCst)
}

/// Something to do that may take any time.
pub(super) trait Errand: Send + 'static {
    fn run(&mut self);
}

/// Does one errand at a time on a thread that there is only while it is needed.
pub(super) struct Helper<E: Errand> {
    shared: Arc<Shared<E>>,
    thread: Option<ThreadHandle>,
}

struct Shared<E> {
    state: Mutex<State<E>>,
    /// There is something to do, or it is over.
    sent: Condvar,
    /// The thread has ended.
    ended: Condvar,
    waker: Waker,
}

struct State<E> {
    errand: Errands<E>,
    has_thread: bool,
    closed: bool,
    abandoned: bool,
}

enum Errands<E> {
    None,
    Sent(Box<E>),
    UnderWay,
    Done(Box<E>),
}

impl<E: Errand> Helper<E> {
    /// `waker` is used when an errand is done.
    pub(super) fn new(waker: Waker) -> Self {
        let state = State { errand: Errands::None, has_thread: false, closed: false, abandoned: false };
        let shared = Shared { state: Mutex::new(state), sent: Condvar::new(), ended: Condvar::new(), waker };
        Self { shared: Arc::new(shared), thread: None }
    }

    /// Sends an errand, after the one before has come [back](Self::take_back).
    ///
    /// # Errors
    /// The errand and why, if there is no thread for it.
    pub(super) fn send(&mut self, errand: Box<E>) -> std::result::Result<(), (Box<E>, Error)> {
        let mut state = self.shared.state();
        if !state.has_thread {
            if let Some(ended) = self.thread.take() {
                // It has nothing left to do but to return.
                drop(state);
                ended.join();
                state = self.shared.state();
            }
            let shared = Arc::clone(&self.shared);
            match allow_another().and_then(|()| spawn(&name_of_helper("console"), move || shared.run())) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => return Err((errand, error)),
            }
            state.has_thread = true;
        }
        state.errand = Errands::Sent(errand);
        drop(state);
        self.shared.sent.notify_one();
        Ok(())
    }

    /// Returns the errand that was sent, once it is done.
    pub(super) fn take_back(&self) -> Option<Box<E>> {
        let mut state = self.shared.state();
        match std::mem::replace(&mut state.errand, Errands::None) {
            Errands::Done(errand) => Some(errand),
            other => {
                state.errand = other;
                None
            }
        }
    }
}

fn allow_another() -> Result<()> {
    let count = abandoned_console_threads();
    if count < MOST_ABANDONED {
        return Ok(());
    }
    let message = format!(
        "{count} threads of consoles that have ended still wait for terminals, devices or files, allowed are less than \
         {MOST_ABANDONED}"
    );
    Err(Error::new(ErrorKind::Console, message))
}

impl<E: Errand> Shared<E> {
    fn run(&self) {
        while let Some(mut errand) = self.next() {
            errand.run();
            self.state().errand = Errands::Done(errand);
            self.waker.wake();
        }
        self.ended.notify_all();
    }

    /// Waits for an errand; `None` once the thread is not needed any more.
    fn next(&self) -> Option<Box<E>> {
        let has_none = |state: &mut State<E>| !state.closed && !matches!(state.errand, Errands::Sent(_));
        let waited = self.sent.wait_timeout_while(self.state(), LINGER, has_none);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match std::mem::replace(&mut state.errand, Errands::None) {
            Errands::Sent(errand) if !state.closed => {
                state.errand = Errands::UnderWay;
                Some(errand)
            }
            other => {
                state.errand = other;
                state.has_thread = false;
                if std::mem::take(&mut state.abandoned) {
                    ABANDONED.fetch_sub(1, Ordering::SeqCst);
                }
                None
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        lock(&self.state)
    }
}

impl<E: Errand> Drop for Helper<E> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        self.shared.sent.notify_one();
        let Some(thread) = self.thread.take() else { return };
        let waited = self.shared.ended.wait_timeout_while(state, PATIENCE, |state| state.has_thread);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.has_thread {
            state.abandoned = true;
            ABANDONED.fetch_add(1, Ordering::SeqCst);
            return;
        }
        drop(state);
        thread.join();
    }
}

#[cfg(test)]
#[path = "helper_test.rs"]
mod tests;
