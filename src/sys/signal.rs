//! The signal that kicks a vCPU thread out of the guest, without a handler anywhere in the process.
//!
//! Our threads block every signal. Only while KVM runs the guest is the kick signal let through, by the mask that KVM
//! installs for that time. A pending signal then makes `KVM_RUN` return `EINTR`, and since it is blocked again before
//! user code runs, it is never delivered: no handler is needed and none of the host program's is called.

use std::mem::MaybeUninit;
use std::ptr;

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
        (1..=64).fold(0, |mask, signal| {
            // SAFETY: the set is initialised and the number is one that sigismember accepts.
            let member = unsafe { libc::sigismember(&self.0, signal) } == 1;
            if member { mask | 1 << (signal - 1) } else { mask }
        })
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

/// The real-time signal that kicks vCPU threads. No handler is installed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KickSignal(i32);

impl KickSignal {
    /// Not one at either end of the real-time signals, where programs begin to count. It is only ever sent to our own
    /// threads, but one that the host program sends to its whole process could end there too.
    pub(crate) fn new() -> Self {
        Self(libc::SIGRTMAX() - 7)
    }

    /// The mask for KVM to install while the guest runs: everything blocked but the kick.
    pub(crate) fn mask_while_running(self) -> u64 {
        SignalSet::all().kernel_mask() & !SignalSet::only(self.0).kernel_mask()
    }

    /// Takes a pending kick off the calling thread. Never blocks.
    pub(crate) fn take_pending(self) {
        let set = SignalSet::only(self.0);
        let no_wait = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointers are valid for the call, and a null pointer for the details is allowed. One call is
        // enough for each kick: a second one queued behind it costs one more return from the guest, no more.
        unsafe { libc::sigtimedwait(&set.0, ptr::null_mut(), &no_wait) };
    }

    pub(crate) fn number(self) -> i32 {
        self.0
    }
}
