//! The signal that kicks a vCPU thread out of the guest, without a handler anywhere in the process.
//!
//! Our threads block every signal. Only while KVM runs the guest is the kick signal let through, by the mask that KVM
//! installs for that time. A pending signal then makes `KVM_RUN` return `EINTR`, and since it is blocked again before
//! user code runs, it is never delivered: no handler is needed and none of the host program's is called. The kernel looks
//! for a default action that ends the process in the mask from before too, so it finds none.

use std::mem::MaybeUninit;
use std::ptr;

use crate::error::{Error, ErrorKind, Result};

/// A set of signals in the C library's form.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Every signal that a thread may block.
    pub(crate) fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the whole set that it is given and cannot fail for a valid pointer.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    fn only(signal: i32) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set; sigaddset only changes it, and ignores an invalid number.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            Self(set.assume_init())
        }
    }

    /// The set as the kernel's 64-bit mask, bit `n - 1` for signal `n`.
    pub(crate) fn kernel_mask(self) -> u64 {
        (0..64).zip(1..).fold(0, |mask, (bit, signal)| {
            // SAFETY: the set is initialised and the number is one that sigismember accepts.
            let member = unsafe { libc::sigismember(&self.0, signal) } == 1;
            if member { mask | 1 << bit } else { mask }
        })
    }

    /// The calling thread's set of blocked signals.
    #[cfg(test)]
    pub(crate) fn current() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: with no new set, pthread_sigmask only fills the one that it is given, and cannot fail.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Makes this the calling thread's set of blocked signals and returns the set before.
    pub(crate) fn block(self) -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both pointers are valid; with a valid `how`, pthread_sigmask cannot fail and fills `before`.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

/// The signal that kicks vCPU threads out of the guest unless another one is chosen: SIGSTKFLT, 16.
///
/// The kernel never sends it, and no runtime that we know of uses it, unlike SIGUSR1 and SIGUSR2 (programs, the JVM), SIGURG
/// (Go), SIGPROF and SIGVTALRM (profilers), SIGPWR and SIGXCPU (garbage collectors), or SIGIO and SIGALRM (timers and I/O).
pub const DEFAULT_KICK_SIGNAL: i32 = libc::SIGSTKFLT;

/// Standard signals end here. From 32 on they are real-time ones.
const LAST_STANDARD: i32 = 31;

/// The signal that kicks vCPU threads. No handler is installed for it.
///
/// A standard one: of those at most one is pending, and more add nothing. A real-time signal is queued, and lost once this
/// user has as many pending as RLIMIT_SIGPENDING allows, whichever process they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KickSignal(i32);

impl Default for KickSignal {
    fn default() -> Self {
        Self(DEFAULT_KICK_SIGNAL)
    }
}

impl KickSignal {
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a number that is no standard signal, or one that cannot be used so.
    pub(crate) fn new(number: i32) -> Result<Self> {
        let why = match number {
            i32::MIN..=0 | 32.. => "is not a standard signal",
            libc::SIGKILL | libc::SIGSTOP => "cannot be blocked",
            libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGSEGV
            | libc::SIGSYS => "tells of a fault",
            libc::SIGCONT | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                "stops or continues the process, whichever thread it is sent to"
            }
            _ => return Ok(Self(number)),
        };
        let message = format!(
            "signal {number} was asked for to kick vCPUs, but {why}; allowed are 1 to {LAST_STANDARD} but for 4 to 9, 11, \
             18 to 22 and 31"
        );
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    /// The mask for KVM to install while the guest runs: everything blocked but the kick.
    pub(crate) fn mask_while_running(self) -> u64 {
        SignalSet::all().kernel_mask() & !SignalSet::only(self.0).kernel_mask()
    }

    /// Takes a pending kick off the calling thread. Never blocks.
    #[cfg(not(shuttle))]
    pub(crate) fn take_pending(self) {
        let set = SignalSet::only(self.0);
        let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointers are valid for the call, and a null pointer for the details is allowed.
        unsafe { libc::sigtimedwait(&set.0, ptr::null_mut(), &no_wait) };
    }

    #[cfg(shuttle)]
    pub(crate) fn take_pending(self) {
        super::model::take_kick();
    }

    pub(crate) fn number(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_cannot_kick_are_refused_and_the_message_lists_the_others() {
        let allowed: Vec<_> = (-1..70).filter(|number| KickSignal::new(*number).is_ok()).collect();
        let refused = |number: i32| matches!(number, 4..=9 | 11 | 18..=22 | 31);
        assert_eq!(allowed, (1..=31).filter(|number| !refused(*number)).collect::<Vec<_>>());
        let error = KickSignal::new(libc::SIGSEGV).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(
            error.to_string().starts_with("signal 11 was asked for to kick vCPUs, but tells of a fault"),
            "{error}"
        );
        assert!(KickSignal::new(i32::MIN).is_err() && KickSignal::new(i32::MAX).is_err());
    }

    #[test]
    fn only_the_kick_passes_while_the_guest_runs() {
        let mask = KickSignal::new(libc::SIGUSR2).unwrap().mask_while_running();
        // The C library keeps 32 and 33 for itself.
        assert_eq!(!mask & !(0b11 << 31), 1 << (libc::SIGUSR2 - 1));
    }
}
