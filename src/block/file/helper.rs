//! The thread that waits for a disk, so that no other does.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::abandoned::Abandoned;
use super::medium_file::DiskFile;
use crate::block::backend::{Done, Operation};
use crate::block::tag::Tag;
use crate::event::Waker;
use crate::sys::{ThreadHandle, lock, name_of_helper, spawn};

/// How long the end of a disk waits for an operation that is under way. After that the thread is left to itself: it keeps the
/// file open and the guest's memory mapped, and ends with that operation.
const PATIENCE: Duration = Duration::from_millis(200);

/// How many operations the thread carries out before it tells the I/O thread, if it has more to do: being woken for each costs
/// that thread more than a write to the page cache costs this one.
const TOGETHER: usize = 16;
/// But it tells after this time.
const LATEST: Duration = Duration::from_micros(100);

/// One thread a disk, started when it is first needed, that carries operations out one after the other.
pub(super) struct Helper {
    shared: Arc<Shared>,
    name: String,
    thread: Option<ThreadHandle>,
}

struct Shared {
    file: Arc<DiskFile>,
    state: Mutex<State>,
    /// There is work, or it is over.
    begun: Condvar,
    /// The thread has ended.
    ended: Condvar,
    waker: Waker,
}

#[derive(Default)]
struct State {
    /// Counts the thread once nobody waits for it any more.
    abandoned: Option<Abandoned>,
    todo: VecDeque<(Tag, Operation)>,
    done: VecDeque<Done>,
    closed: bool,
    is_over: bool,
}

impl Helper {
    /// For the disk that the calling thread serves.
    pub(super) fn new(file: Arc<DiskFile>, waker: Waker) -> Self {
        let (begun, ended) = (Condvar::new(), Condvar::new());
        let shared = Shared { file, state: Mutex::default(), begun, ended, waker };
        Self { shared: Arc::new(shared), name: name_of_helper("disk"), thread: None }
    }

    /// Leaves an operation to the thread, which looks at it when it is [roused](Self::rouse).
    ///
    /// # Errors
    /// The operation and why, if the host gives no thread.
    pub(super) fn begin(&mut self, tag: Tag, operation: Operation) -> Result<(), (Operation, io::Error)> {
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            match spawn(&self.name, move || shared.run()) {
                Ok(thread) => self.thread = Some(thread),
                Err(e) => return Err((operation, io::Error::other(e))),
            }
        }
        self.shared.state().todo.push_back((tag, operation));
        Ok(())
    }

    /// Has the thread look for what it was left.
    pub(super) fn rouse(&self) {
        self.shared.begun.notify_one();
    }

    pub(super) fn take_done(&self) -> Option<Done> {
        self.shared.state().done.pop_front()
    }

    /// Fails what has not begun.
    pub(super) fn cancel(&self) {
        let mut state = self.shared.state();
        while let Some((tag, operation)) = state.todo.pop_front() {
            let cancelled = io::Error::from_raw_os_error(libc::ECANCELED);
            state.done.push_back(Done::new(tag, operation, Err(cancelled)));
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut told = Instant::now();
        while let Some((tag, mut operation)) = self.next() {
            // What is done already is not to wait for one that is bound to take long.
            if !is_quick(&operation) {
                self.waker.wake();
            }
            let result = self.file.run(&mut operation);
            let mut state = self.state();
            state.done.push_back(Done::new(tag, operation, result));
            let is_enough = state.todo.is_empty() || state.done.len() >= TOGETHER;
            drop(state);
            if is_enough || told.elapsed() >= LATEST {
                self.waker.wake();
                told = Instant::now();
            }
        }
        let mut state = self.state();
        state.is_over = true;
        state.abandoned = None;
        drop(state);
        self.ended.notify_all();
    }

    /// Waits for an operation; `None` when it is over.
    fn next(&self) -> Option<(Tag, Operation)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.todo.pop_front() {
                return Some(next);
            }
            state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Whether it moves data from or to the page cache, at best.
fn is_quick(operation: &Operation) -> bool {
    matches!(operation, Operation::Read { .. } | Operation::Write { stable: false, .. })
}

impl Drop for Helper {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        let rest = (std::mem::take(&mut state.todo), std::mem::take(&mut state.done));
        self.shared.begun.notify_one();
        let Some(thread) = self.thread.take() else { return };
        let over = self.shared.ended.wait_timeout_while(state, PATIENCE, |state| !state.is_over);
        let mut state = over.unwrap_or_else(PoisonError::into_inner).0;
        let is_over = state.is_over;
        if !is_over {
            state.abandoned = Some(Abandoned::count());
        }
        drop(state);
        drop(rest);
        if is_over {
            thread.join();
        }
    }
}
