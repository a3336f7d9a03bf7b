//! The thread that waits for a disk, so that no other does.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::abandoned::Abandoned;
use super::medium_file::DiskFile;
use crate::block::backend::{Done, Operation};
use crate::block::tag::Tag;
use crate::error::Result;
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
    todo: VecDeque<Task>,
    done: VecDeque<Answer>,
    closed: bool,
    is_over: bool,
}

/// What the thread is to do.
pub(super) enum Task {
    Carry(Tag, Operation),
    /// Finds out how large the file is now.
    Measure,
}

/// What came of it.
pub(super) enum Answer {
    Done(Done),
    Size(Result<u64>),
}

impl Helper {
    /// For the disk that the calling thread serves.
    pub(super) fn new(file: Arc<DiskFile>, waker: Waker) -> Self {
        let (begun, ended) = (Condvar::new(), Condvar::new());
        let shared = Shared { file, state: Mutex::default(), begun, ended, waker };
        Self { shared: Arc::new(shared), name: name_of_helper("disk"), thread: None }
    }

    /// Leaves a task to the thread, which looks at it when it is [roused](Self::rouse).
    ///
    /// # Errors
    /// The task and why, if the host gives no thread.
    pub(super) fn begin(&mut self, task: Task) -> std::result::Result<(), (Task, io::Error)> {
        if self.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            match spawn(&self.name, move || shared.run()) {
                Ok(thread) => self.thread = Some(thread),
                Err(e) => return Err((task, io::Error::other(e))),
            }
        }
        self.shared.state().todo.push_back(task);
        Ok(())
    }

    /// Has the thread look for what it was left.
    pub(super) fn rouse(&self) {
        self.shared.begun.notify_one();
    }

    pub(super) fn take_answer(&self) -> Option<Answer> {
        self.shared.state().done.pop_front()
    }

    /// Fails the operations that have not begun.
    pub(super) fn cancel(&self) {
        let mut state = self.shared.state();
        for _ in 0..state.todo.len() {
            match state.todo.pop_front() {
                Some(Task::Carry(tag, operation)) => {
                    let cancelled = io::Error::from_raw_os_error(libc::ECANCELED);
                    state.done.push_back(Answer::Done(Done::new(tag, operation, Err(cancelled))));
                }
                Some(Task::Measure) => state.todo.push_back(Task::Measure),
                None => {}
            }
        }
    }
}

impl Shared {
    fn run(&self) {
        let (mut told, mut untold, mut flushes) = (Instant::now(), false, Vec::new());
        while let Some(task) = self.next(&mut flushes) {
            // What is done already is not to wait for one that is bound to take long.
            if untold && !is_quick(&task) {
                self.waker.wake();
            }
            let answer = self.carry_out(task);
            let mut state = self.state();
            state.done.extend(flushes.drain(..).map(|tag| also(tag, &answer)));
            state.done.push_back(answer);
            untold = !state.todo.is_empty() && state.done.len() < TOGETHER;
            drop(state);
            if !untold || told.elapsed() >= LATEST {
                self.waker.wake();
                (told, untold) = (Instant::now(), false);
            }
        }
        let mut state = self.state();
        state.is_over = true;
        state.abandoned = None;
        drop(state);
        self.ended.notify_all();
    }

    /// Waits for a task; `None` when it is over. If that is a flush, takes all the others that wait as well: what one makes stable,
    /// they all do.
    fn next(&self, flushes: &mut Vec<Tag>) -> Option<Task> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(next) = state.todo.pop_front() {
                if let Task::Carry(_, Operation::Flush) = next {
                    state.todo.retain(|task| match task {
                        Task::Carry(tag, Operation::Flush) => {
                            flushes.push(*tag);
                            false
                        }
                        _ => true,
                    });
                }
                return Some(next);
            }
            state = self.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn carry_out(&self, task: Task) -> Answer {
        match task {
            Task::Carry(tag, mut operation) => {
                let result = self.file.run(&mut operation);
                Answer::Done(Done::new(tag, operation, result))
            }
            Task::Measure => Answer::Size(self.file.size()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The same answer for another flush.
fn also(tag: Tag, answer: &Answer) -> Answer {
    let same =
        |error: &io::Error| error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
    let result = match answer {
        Answer::Done(done) => done.result.as_ref().copied().map_err(same),
        Answer::Size(_) => Ok(()),
    };
    Answer::Done(Done::new(tag, Operation::Flush, result))
}

/// Whether it moves data to the page cache, at best. What is read lies there seldom: it would have been read at once.
fn is_quick(task: &Task) -> bool {
    matches!(task, Task::Carry(_, Operation::Write { stable: false, .. }))
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

#[cfg(test)]
#[path = "helper_test.rs"]
mod tests;
