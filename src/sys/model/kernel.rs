//! The kernel as models see it: eventfds, waiting for them, and signals to threads, behind one lock.
//!
//! A model runs the threads of the library under the checker `shuttle`, which tries one order of their steps after the other. What
//! blocks in the kernel would block the checker, so that these parts of the kernel are played here. Time is not: a wait that has a
//! limit is over at once, or at some time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::{Config, MaxSteps, Runner, lazy_static};

lazy_static! {
    static ref KERNEL: Kernel = Kernel::default();
}

#[derive(Default)]
struct Kernel {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    eventfds: BTreeMap<RawFd, Counter>,
    /// Threads that have a kick pending.
    kicked: BTreeSet<i32>,
}

#[derive(Clone, Copy, Default)]
struct Counter {
    count: u64,
    /// How often it was signalled in all.
    signals: u64,
}

/// What an epoll watches.
pub(super) struct Watched {
    pub(super) fd: RawFd,
    pub(super) key: u64,
    edge: bool,
    /// Signals that were reported.
    seen: u64,
}

impl Watched {
    pub(super) fn new(fd: RawFd, key: u64, edge: bool) -> Self {
        let Counter { count, signals } = state().eventfds.get(&fd).copied().unwrap_or_default();
        Self { fd, key, edge, seen: signals - u64::from(count > 0) }
    }

    fn take_ready(&mut self, state: &State) -> bool {
        let Some(counter) = state.eventfds.get(&self.fd) else { return false };
        if self.edge {
            return std::mem::replace(&mut self.seen, counter.signals) != counter.signals;
        }
        counter.count > 0
    }
}

fn state() -> MutexGuard<'static, State> {
    KERNEL.state.lock().unwrap()
}

pub(super) fn signal(fd: RawFd) {
    let mut state = state();
    let counter = state.eventfds.entry(fd).or_default();
    counter.count += 1;
    counter.signals += 1;
    KERNEL.changed.notify_all();
}

pub(super) fn take(fd: RawFd) -> bool {
    std::mem::take(&mut state().eventfds.entry(fd).or_default().count) > 0
}

/// Blocks until somebody has signalled it, and takes that.
pub(super) fn wait_for(fd: RawFd) {
    let mut state = state();
    while state.eventfds.entry(fd).or_default().count == 0 {
        state = KERNEL.changed.wait(state).unwrap();
    }
    state.eventfds.entry(fd).or_default().count = 0;
}

pub(super) fn close(fd: RawFd) {
    state().eventfds.remove(&fd);
}

/// The keys of what is ready; waits until there is one, if that is asked for.
pub(super) fn poll(watched: &mut [Watched], waits: bool) -> Vec<u64> {
    let mut state = state();
    loop {
        let ready = watched.iter_mut().filter_map(|each| each.take_ready(&state).then_some(each.key));
        let ready: Vec<u64> = ready.collect();
        if !waits || !ready.is_empty() {
            return ready;
        }
        state = KERNEL.changed.wait(state).unwrap();
    }
}

/// The identifier of the calling thread. Never 0.
pub(crate) fn this_thread() -> i32 {
    i32::try_from(usize::from(shuttle::thread::current().id())).unwrap() + 1
}

/// Sends the kick to a thread, which blocks it but in [`KVM_RUN`](run_guest).
pub(crate) fn kick(thread: i32) {
    state().kicked.insert(thread);
    KERNEL.changed.notify_all();
}

/// Takes a pending kick off the calling thread.
pub(crate) fn take_kick() {
    state().kicked.remove(&this_thread());
}

/// KVM_RUN of a guest that never exits by itself: returns when a kick is pending, or `immediate_exit` says so before the guest is
/// entered. `in_guest` is told when it is entered and left.
pub(crate) fn run_guest(immediate_exit: impl FnOnce() -> bool, in_guest: impl Fn(bool)) {
    if immediate_exit() {
        return;
    }
    let this = this_thread();
    let mut state = state();
    if state.kicked.contains(&this) {
        return;
    }
    in_guest(true);
    while !state.kicked.contains(&this) {
        state = KERNEL.changed.wait(state).unwrap();
    }
    in_guest(false);
}

/// Runs a model in one order of its steps after the other, as many as the variable `VMCELL_SCHEDULES` says: half of them drawn step by
/// step, and half with few changes between threads, at steps that are drawn (PCT). Panics at the first that fails, and prints it.
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("VMCELL_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(1000usize);
    let mut config = Config::new();
    config.silence_warnings = true;
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(100_000);
    let model = Arc::new(model);
    let again = Arc::clone(&model);
    Runner::new(RandomScheduler::new(schedules.div_ceil(2)), config.clone()).run(move || model());
    Runner::new(PctScheduler::new(CHANGES, schedules.div_ceil(2)), config).run(move || again());
}

/// How often PCT takes the CPU from a thread that could go on.
const CHANGES: usize = 3;
