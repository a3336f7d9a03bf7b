//! Threads that no signal of the host program can land on.

use std::cell::Cell;
use std::time::Duration;

use super::signal::{KickSignal, SignalSet};
use super::sync::thread::{self, Builder, JoinHandle};
use super::sync::thread_local;
use crate::error::{Error, ErrorKind, Result};

/// What Linux keeps of a thread's name, in bytes.
const NAME_LEN: usize = 15;

/// A thread of ours, not yet joined, so that its identifier stays valid.
pub(crate) struct ThreadHandle(JoinHandle<()>);

/// Starts a thread with every signal blocked from its first instruction.
///
/// The name is cut to the 15 bytes that Linux keeps.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<ThreadHandle> {
    // The new thread inherits the mask, so there is no moment in which a signal of the host program could reach it.
    let unblocked = Unblocks(SignalSet::all().block());
    let filtered = filtered();
    let spawned = Builder::new().name(name.to_owned()).spawn(move || {
        FILTERED.with(|known| known.set(filtered));
        body();
    });
    drop(unblocked);
    spawned.map(ThreadHandle).map_err(|e| {
        let limit = match e.raw_os_error() {
            Some(libc::EAGAIN) => "; the limits are RLIMIT_NPROC, kernel.threads-max and the pids.max of cgroups",
            _ => "",
        };
        Error::new(ErrorKind::Host, format!("cannot start thread {name}{limit}")).with_source(e)
    })
}

/// Gives the calling thread its signals back, also if it panics meanwhile.
struct Unblocks(SignalSet);

impl Drop for Unblocks {
    fn drop(&mut self) {
        self.0.block();
    }
}

/// Blocks every signal in the calling thread.
pub(crate) fn block_all_signals() {
    SignalSet::all().block();
}

/// What a thread is called that does `role` for `owner`: `owner:role`, with the owner cut so that the role can be read, or
/// `vmcell-role` without an owner.
pub(crate) fn thread_name(owner: &str, role: &str) -> String {
    if owner.is_empty() {
        return format!("vmcell-{role}");
    }
    let room = NAME_LEN.saturating_sub(role.len().saturating_add(1));
    let end = (0..=owner.len().min(room)).rev().find(|end| owner.is_char_boundary(*end)).unwrap_or(0);
    format!("{}:{role}", owner.get(..end).unwrap_or_default())
}

/// What a thread is called that the calling thread starts for itself: after the owner in its own name, so that `NAME:io` has
/// `NAME:disk`.
pub(crate) fn name_of_helper(role: &str) -> String {
    let this = thread::current();
    let owner = this.name().and_then(|name| name.rsplit_once(':')).map_or("", |(owner, _)| owner);
    thread_name(owner, role)
}

impl ThreadHandle {
    /// Waits for the thread to end. A panic in it was caught and reported by its body. The thread itself does not wait for its
    /// own end.
    pub(crate) fn join(self) {
        if self.0.thread().id() != thread::current().id() {
            let _ = self.0.join();
        }
    }
}

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(true) };
    static FILTERED: Cell<Filtered> = const { Cell::new(Filtered::Not) };
}

/// How we filter the system calls of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    Not,
    /// As those of a thread that keeps VMs; there may be another filter.
    AsControl,
    /// As those of a thread of a VM; there cannot be another filter.
    AsVm,
}

/// From now on the system calls of the calling thread are filtered, and those of the threads that it starts.
pub(crate) fn note_filtered(how: Filtered) {
    FILTERED.with(|known| known.set(how));
}

/// How we filter the system calls of the calling thread.
pub(crate) fn filtered() -> Filtered {
    FILTERED.with(Cell::get)
}

/// Whether system calls of the calling thread are filtered by us.
pub(crate) fn is_filtered() -> bool {
    filtered() != Filtered::Not
}

/// From now on the calling thread is one for which others wait: it must not wait for them.
pub(crate) fn forbid_waiting() {
    MAY_WAIT.with(|may_wait| may_wait.set(false));
}

/// Makes a call in which the calling thread must not wait for threads of VMs, since they wait for it.
pub(crate) fn without_waiting<R>(call: impl FnOnce() -> R) -> R {
    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            MAY_WAIT.with(|may_wait| may_wait.set(self.0));
        }
    }

    let _before = Before(MAY_WAIT.with(|may_wait| may_wait.replace(false)));
    call()
}

/// Whether the calling thread may wait for threads of VMs. An I/O thread or a vCPU's thread must not: two of them that wait for
/// each other would wait for ever.
pub(crate) fn may_wait() -> bool {
    MAY_WAIT.with(Cell::get)
}

/// Refuses what waits for threads of VMs on a thread that must not. `what` completes "a callback cannot ...".
pub(crate) fn check_may_wait(what: &str) -> Result<()> {
    if may_wait() {
        return Ok(());
    }
    let message = format!("a callback on a thread of a VM cannot {what}; do that on a thread of your own");
    Err(Error::new(ErrorKind::InvalidState, message))
}

/// How long the calling thread has run on a CPU. Costs a system call.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; the clock is one that every thread has, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The same for another thread of this process, which the caller keeps from ending; `None` if it has ended.
pub(crate) fn thread_cpu_time_of(tid: i32) -> Option<Duration> {
    // How the kernel numbers the clocks of threads: 6 is the time of one thread that its scheduler measures.
    let clock = (!tid) << 3 | 6;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// The kernel's identifier of the calling thread. Never 0.
#[cfg(shuttle)]
pub(crate) fn current_thread_id() -> i32 {
    super::model::this_thread()
}

/// The kernel's identifier of the calling thread. Never 0.
#[cfg(not(shuttle))]
pub(crate) fn current_thread_id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

/// Sends the kick to a thread of this process. Harmless if it has ended.
///
/// The caller makes sure that the thread blocks the signal, so that nothing but `KVM_RUN` sees it.
#[cfg(not(shuttle))]
pub(crate) fn kick_thread(thread: i32, signal: KickSignal) {
    // SAFETY: plain integers; a thread that is gone, or that is not of this process, gives an error.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal.number()) };
}

#[cfg(shuttle)]
pub(crate) fn kick_thread(thread: i32, _: KickSignal) {
    super::model::kick(thread);
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_helper_is_called_after_the_owner_of_the_thread_that_starts_it() {
        let on = |name: &str| {
            let helper = Builder::new().name(name.to_owned()).spawn(|| name_of_helper("console"));
            helper.unwrap().join().unwrap()
        };
        assert_eq!(on("a-tenant-s-web:io"), "a-tenan:console");
        assert_eq!(on("shared"), "vmcell-console");
    }

    #[test]
    fn the_cpu_time_of_another_thread_is_what_it_says_itself() {
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            while thread_cpu_time() < Duration::from_millis(5) {}
            tell.send((current_thread_id(), thread_cpu_time())).unwrap();
            let _ = gone.recv();
        });
        let (tid, least) = told.recv().unwrap();
        let time = thread_cpu_time_of(tid).unwrap();
        assert!(time >= least && time < least + Duration::from_secs(1), "{time:?} {least:?}");
        drop(go);
        thread.join().unwrap();
    }

    #[test]
    fn the_owner_s_name_is_cut_and_the_role_is_not() {
        assert_eq!(thread_name("", "vcpu0"), "vmcell-vcpu0");
        assert_eq!(thread_name("web-1", "vcpu0"), "web-1:vcpu0");
        assert_eq!(thread_name("a-rather-long-name", "vcpu63"), "a-rather:vcpu63");
        assert_eq!(thread_name("ääääääää", "io"), "ääääää:io");
        for owner in ["a-rather-long-name", "ääääääääää"] {
            assert!(thread_name(owner, "vcpu63").len() <= NAME_LEN);
        }
    }

    #[test]
    fn a_name_that_no_thread_can_have_leaves_the_callers_signals_as_they_were() {
        let before = SignalSet::current().kernel_mask();
        assert!(catch_unwind(|| spawn("a\0b", || {})).is_err(), "the standard library takes such names now");
        assert_eq!(SignalSet::current().kernel_mask(), before);
    }

    #[test]
    fn a_thread_that_is_to_join_itself_does_not_wait_for_its_own_end() {
        let (sender, own) = channel::<ThreadHandle>();
        let (told, joined) = channel();
        let thread = spawn("test-join", move || {
            own.recv().unwrap().join();
            told.send(()).unwrap();
        });
        sender.send(thread.unwrap()).unwrap();
        joined.recv_timeout(Duration::from_secs(30)).expect("it goes on");
    }
}
