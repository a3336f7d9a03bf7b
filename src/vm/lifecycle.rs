//! The life of a VM from its start to its end: the goal that the host program sets, which vCPU threads have reached it, and
//! how the VM ended.
//!
//! The goal only moves as the drawing shows; `Stop` is final. A change kicks the vCPUs that may be in the guest, so that each
//! thread sees it before it runs another instruction of the guest.
//!
//! ```text
//! Ready ──start──▶ Run ◀──resume/pause──▶ Pause
//!   └───────────────┴──── end ────────────┴────▶ Stop
//! ```

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::exit::{Exit, Status};
use crate::config::vcpus;
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::VcpuKicker;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{EventFd, lock};

pub(super) struct Lifecycle {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the goal is anything but `Run`: read before each entry into the guest.
    interrupted: AtomicBool,
    /// Signalled, and never taken, once the VM has ended and its vCPU threads have left the guest.
    ended: EventFd,
    kickers: Vec<VcpuKicker>,
    /// The VM's name.
    name: Arc<str>,
}

struct State {
    goal: Goal,
    /// vCPU threads that may be in the guest.
    active: usize,
    /// vCPU threads that may enter the guest again.
    running: usize,
    /// vCPU threads that have not returned.
    alive: usize,
    /// Whether the guest said that it goes on in a crash kernel.
    panicked: bool,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Ready,
    Run,
    Pause,
    Stop,
}

/// What a vCPU thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextMove {
    Run,
    /// Paused: leave the vCPU whole, then [`Lifecycle::park`].
    Park,
    Finish,
}

impl Lifecycle {
    pub(super) fn new(name: Arc<str>, kickers: Vec<VcpuKicker>) -> Result<Self> {
        let state = State { goal: Goal::Ready, active: 0, running: 0, alive: 0, panicked: false, exit: None };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            interrupted: AtomicBool::new(true),
            ended: EventFd::new()?,
            kickers,
            name,
        })
    }

    /// What the VM is called in a message.
    pub(super) fn the_vm(&self) -> String {
        if self.name.is_empty() { "the VM".to_owned() } else { format!("the VM {:?}", self.name) }
    }

    pub(super) fn ended(&self) -> &EventFd {
        &self.ended
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        match state.goal {
            Goal::Ready => Status::Ready,
            Goal::Run => Status::Running,
            Goal::Pause => Status::Paused,
            Goal::Stop if state.alive > 0 => Status::Ending,
            Goal::Stop => Status::Ended,
        }
    }

    /// The goal becomes `Run`; `vcpus` threads are about to take part.
    pub(super) fn start(&self, vcpus: usize) -> Result<()> {
        let mut state = self.state();
        self.expect(&state, "start", &[Goal::Ready])?;
        (state.active, state.running, state.alive) = (vcpus, vcpus, vcpus);
        self.set_goal(&mut state, Goal::Run);
        Ok(())
    }

    /// The goal becomes `Pause`; waits until no vCPU is in the guest. If one still is when `deadline` passes, the VM goes on.
    pub(super) fn pause(&self, deadline: Option<Instant>) -> Result<()> {
        let mut state = self.state();
        self.expect(&state, "pause", &[Goal::Run, Goal::Pause])?;
        self.set_goal(&mut state, Goal::Pause);
        while state.active > 0 && state.goal == Goal::Pause {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                let held = state.active;
                self.set_goal(&mut state, Goal::Run);
                // The caller adds which device holds one, if any does.
                let message = format!(
                    "{} of {} had not stopped when the time limit of the pause passed",
                    vcpus(held),
                    self.the_vm()
                );
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            state = self.wait_for_change(state, left);
        }
        self.expect(&state, "pause", &[Goal::Pause])
    }

    pub(super) fn resume(&self) -> Result<()> {
        let mut state = self.state();
        self.expect(&state, "resume", &[Goal::Run, Goal::Pause])?;
        self.set_goal(&mut state, Goal::Run);
        Ok(())
    }

    /// Ends the VM, unless it has ended already: the first reason is the one that counts.
    pub(super) fn end(&self, exit: Exit) {
        let mut state = self.state();
        if state.exit.is_none() {
            state.exit = Some(if state.panicked { exit.after_panic() } else { exit });
        }
        self.set_goal(&mut state, Goal::Stop);
        if state.alive == 0 {
            self.ended.signal();
        }
    }

    /// How the VM ends, or has ended.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.state().exit.clone()
    }

    /// The guest panicked, and goes on: however it ends, that is why.
    pub(super) fn note_panic(&self) {
        self.state().panicked = true;
    }

    /// Refuses what only a guest can do that was started and has not ended.
    pub(super) fn expect_guest(&self, call: &str) -> Result<()> {
        self.expect(&self.state(), call, &[Goal::Run, Goal::Pause])
    }

    /// Waits until the VM has ended and its vCPU threads have left the guest, or `deadline` passes.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<Exit> {
        let mut state = self.state();
        loop {
            if let (Some(exit), 0) = (&state.exit, state.alive) {
                return Ok(exit.clone());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                let message = format!("{} had not ended when the time limit passed", self.the_vm());
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            state = self.wait_for_change(state, left);
        }
    }

    /// Waits until every vCPU thread of a VM that was told to end has left, or `deadline` passes. By then, at the latest, none may
    /// be in the guest.
    pub(super) fn wait_stopped(&self, deadline: Instant) -> Result<()> {
        let mut state = self.state();
        while state.alive > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.expect_out_of_guest(&state);
            }
            state = self.wait_for_change(state, Some(left));
        }
        Ok(())
    }

    /// Waits for a change, at most for `limit`.
    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        match limit {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// What a vCPU thread does next. Costs one atomic load while the guest runs.
    pub(super) fn next_move(&self) -> NextMove {
        if !self.interrupted.load(Ordering::Acquire) {
            return NextMove::Run;
        }
        match self.state().goal {
            Goal::Run => NextMove::Run,
            Goal::Ready | Goal::Pause => NextMove::Park,
            Goal::Stop => NextMove::Finish,
        }
    }

    /// Blocks a vCPU thread for as long as the VM is paused.
    pub(super) fn park(&self) {
        let mut state = self.state();
        state.active = state.active.saturating_sub(1);
        self.changed.notify_all();
        while matches!(state.goal, Goal::Ready | Goal::Pause) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.active = state.active.saturating_add(1);
    }

    /// A vCPU thread is about to return. Says whether it is the last one.
    pub(super) fn is_last_vcpu(&self) -> bool {
        let mut state = self.state();
        state.active = state.active.saturating_sub(1);
        // Not by those in the guest: others may be parked, and are not woken yet.
        state.running = state.running.saturating_sub(1);
        state.running == 0
    }

    /// A vCPU thread returns.
    pub(super) fn vcpu_finished(&self) {
        let mut state = self.state();
        state.alive = state.alive.saturating_sub(1);
        if state.alive == 0 {
            self.ended.signal();
        }
        self.changed.notify_all();
    }

    fn set_goal(&self, state: &mut State, goal: Goal) {
        state.goal = goal;
        self.interrupted.store(goal != Goal::Run, Ordering::Release);
        self.changed.notify_all();
        // Parked threads are not in the guest, and look at the goal before they enter it.
        if goal != Goal::Run && state.active > 0 {
            self.kickers.iter().for_each(VcpuKicker::kick);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A thread counts as out of the guest once it is parked or done: nothing else is known of where it is.
    fn expect_out_of_guest(&self, state: &State) -> Result<()> {
        if state.active == 0 {
            return Ok(());
        }
        let message = format!(
            "{} vCPU threads of {} have not reported back yet, because the host did not run them in time or on_thread_start holds \
             them; they were told to leave, and none enters the guest again",
            state.active,
            self.the_vm()
        );
        Err(Error::new(ErrorKind::Timeout, message))
    }

    fn expect(&self, state: &State, call: &str, allowed: &[Goal]) -> Result<()> {
        if allowed.contains(&state.goal) {
            return Ok(());
        }
        let found = match state.goal {
            Goal::Ready => "was not started",
            Goal::Run => "runs",
            Goal::Pause => "is paused",
            Goal::Stop => "has ended",
        };
        let message = if self.name.is_empty() {
            format!("cannot {call} a VM that {found}")
        } else {
            format!("cannot {call} {}, which {found}", self.the_vm())
        };
        Err(Error::new(ErrorKind::InvalidState, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a VM with two vCPUs that was started and told to stop, on a host that does not run its threads.
    fn stopping() -> Lifecycle {
        let lifecycle = Lifecycle::new(Arc::from(""), Vec::new()).unwrap();
        lifecycle.start(2).unwrap();
        lifecycle.end(Exit::Stopped);
        lifecycle
    }

    #[test]
    fn a_stop_on_a_host_that_runs_no_thread_says_how_many_it_is_and_blames_no_backend() {
        let lifecycle = stopping();
        let error = lifecycle.wait_stopped(Instant::now()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().starts_with("2 vCPU threads of the VM have not reported back yet"), "{error}");
        assert!(!lifecycle.is_last_vcpu());
        assert!(lifecycle.wait_stopped(Instant::now()).unwrap_err().to_string().starts_with("1 vCPU"));
    }

    #[test]
    fn a_pause_that_a_busy_host_does_not_make_in_time_blames_no_device() {
        let lifecycle = Lifecycle::new(Arc::from("web-1"), Vec::new()).unwrap();
        lifecycle.start(2).unwrap();
        let error = lifecycle.pause(Some(Instant::now())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let told = "2 vCPUs of the VM \"web-1\" had not stopped when the time limit of the pause passed";
        assert_eq!((error.to_string().as_str(), lifecycle.status()), (told, Status::Running));
    }

    #[test]
    fn one_vcpu_that_has_not_stopped_is_told_as_one() {
        let lifecycle = Lifecycle::new(Arc::from(""), Vec::new()).unwrap();
        lifecycle.start(1).unwrap();
        let error = lifecycle.pause(Some(Instant::now())).unwrap_err().to_string();
        assert!(error.starts_with("1 vCPU of the VM had not stopped"), "{error}");
    }

    #[test]
    fn a_stop_is_done_once_no_vcpu_is_in_the_guest_and_the_vm_has_ended_once_all_threads_have() {
        let lifecycle = stopping();
        assert!(!lifecycle.is_last_vcpu() && lifecycle.is_last_vcpu());
        lifecycle.wait_stopped(Instant::now()).unwrap();
        assert_eq!(lifecycle.status(), Status::Ending);
        assert_eq!(lifecycle.wait(Some(Instant::now())).unwrap_err().kind(), ErrorKind::Timeout);
        lifecycle.vcpu_finished();
        lifecycle.vcpu_finished();
        assert_eq!((lifecycle.status(), lifecycle.wait(None).unwrap()), (Status::Ended, Exit::Stopped));
    }

    #[test]
    fn a_vcpu_that_leaves_while_another_is_parked_is_not_the_last() {
        let lifecycle = Arc::new(Lifecycle::new(Arc::from(""), Vec::new()).unwrap());
        lifecycle.start(2).unwrap();
        lifecycle.set_goal(&mut lifecycle.state(), Goal::Pause);
        let parks = Arc::clone(&lifecycle);
        let parks = std::thread::spawn(move || {
            parks.park();
            parks.is_last_vcpu()
        });
        while lifecycle.state().active == 2 {
            std::thread::yield_now();
        }
        assert!(!lifecycle.is_last_vcpu());
        lifecycle.end(Exit::Stopped);
        assert!(parks.join().unwrap());
    }
}
