//! The tests that wait for a nested host, and those that are done. Hosts take the next test whenever they are free, so
//! the slowest test decides little. Nothing here knows QEMU.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A test that was lost with its host this often has failed.
pub const TRIES: usize = 3;
/// The same for a test that ran over its time while its host went on: a second hang is the test's own, not the
/// emulation's.
pub const TRIES_LATE: usize = 2;

/// A test to run in a nested host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its place in the caller's list.
    pub id: u32,
    /// The binary's name on the disk.
    pub binary: String,
    /// The test function in it.
    pub name: String,
    /// Why each of its earlier hosts was lost.
    pub lost: Vec<String>,
}

/// The result of a test.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub job: Job,
    /// Empty if it passed, else the reason.
    pub failure: Option<String>,
    pub output: String,
    pub took: Duration,
}

/// Shared by all hosts.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    done: Vec<Done>,
}

impl Queue {
    /// All of `jobs` wait.
    pub fn new(jobs: Vec<Job>) -> Self {
        Self { state: Mutex::new(State { waiting: jobs.into(), done: Vec::new() }) }
    }

    /// The next test to run.
    pub fn take(&self) -> Option<Job> {
        self.state().waiting.pop_front()
    }

    /// Is there anything to run?
    pub fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// A test ended.
    pub fn finish(&self, done: Done) {
        self.state().done.push(done);
    }

    /// The host was lost while it ran `job`: it waits again, after the others, unless it was tried `tries` times.
    pub fn lost(&self, mut job: Job, why: &str, tries: usize, output: String, took: Duration) {
        job.lost.push(why.into());
        if job.lost.len() < tries {
            self.state().waiting.push_back(job);
        } else {
            let failure = Some(format!("{} (at {} tries)", job.lost.join("; "), job.lost.len()));
            self.finish(Done { job, failure, output, took });
        }
    }

    /// Returns the results; tests that still wait were never run, because of `why`.
    pub fn into_done(self, why: &str) -> Vec<Done> {
        let State { waiting, mut done } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.extend(waiting.into_iter().map(|job| Done {
            job,
            failure: Some(format!("not run: {why}")),
            output: String::new(),
            took: Duration::ZERO,
        }));
        done.sort_by_key(|done| done.job.id);
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No operation leaves the state half done, so a panic elsewhere does not matter here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u32) -> Job {
        Job { id, binary: "b".into(), name: format!("t{id}"), lost: Vec::new() }
    }

    fn passed(job: Job) -> Done {
        Done { job, failure: None, output: String::new(), took: Duration::ZERO }
    }

    #[test]
    fn each_job_is_taken_once_and_reported_in_order() {
        let queue = Queue::new(vec![job(0), job(1)]);
        let (first, second) = (queue.take().unwrap(), queue.take().unwrap());
        assert!(queue.is_empty());
        queue.finish(passed(second));
        queue.finish(passed(first));
        let ids: Vec<u32> = queue.into_done("").iter().map(|done| done.job.id).collect();
        assert_eq!(ids, [0, 1]);
    }

    #[test]
    fn a_lost_job_goes_behind_the_others() {
        let queue = Queue::new(vec![job(0), job(1)]);
        let lost = queue.take().unwrap();
        queue.lost(lost, "hung", TRIES, String::new(), Duration::ZERO);
        assert_eq!(queue.take().unwrap().id, 1);
        assert_eq!(queue.take().unwrap().lost, ["hung"]);
    }

    #[test]
    fn a_job_lost_too_often_has_failed() {
        let queue = Queue::new(vec![job(0)]);
        for _ in 0..TRIES {
            let lost = queue.take().unwrap();
            queue.lost(lost, "hung", TRIES, String::new(), Duration::ZERO);
        }
        assert!(queue.is_empty());
        assert_eq!(queue.into_done("")[0].failure.as_deref(), Some("hung; hung; hung (at 3 tries)"));
    }

    #[test]
    fn a_job_that_still_waits_was_not_run() {
        let done = Queue::new(vec![job(0)]).into_done("no host");
        assert_eq!(done[0].failure.as_deref(), Some("not run: no host"));
    }
}
