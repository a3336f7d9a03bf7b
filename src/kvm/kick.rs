//! Making the thread that runs a vCPU come back from the guest.
//!
//! A kick sets a bit that KVM looks at before it enters the guest, and sends a signal for the case that it is in the guest
//! already. The thread blocks that signal, except inside `KVM_RUN`, so it ends that call and is never delivered: no handler
//! is needed, and none of the host program's is called.

use std::cell::RefCell;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use kvm_bindings::{KVMIO, kvm_signal_mask};
use vmm_sys_util::ioctl::ioctl_with_ptr;
use vmm_sys_util::ioctl_iow_nr;

use super::fd::VcpuFd;
use super::immediate_exit::{ImmediateExit, KICKED};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::{Mutex, MutexGuard, thread_local};
use crate::sys::{KickSignal, current_thread_id, kick_thread, lock};

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// Makes the thread that runs a vCPU come back from the guest. Clones reach the same vCPU; a kicker may outlive it, and
/// does nothing then.
#[derive(Clone)]
pub struct VcpuKicker(pub(super) Arc<Runner>);

impl VcpuKicker {
    /// Makes [`Vcpu::run`](super::Vcpu::run) return [`VcpuExit::Interrupted`](super::VcpuExit::Interrupted), now or, if no
    /// thread is in it, at its next call. Kicks that come before that are one. From any thread; never blocks, and cannot
    /// be refused: neither step needs anything that the host could have run out of.
    pub fn kick(&self) {
        let reach = self.0.reach();
        let Some(immediate_exit) = &reach.immediate_exit else { return };
        // In this order: a thread that the signal finds outside of KVM_RUN sees the bit when it gets there.
        immediate_exit.set(KICKED);
        if let Some(thread) = reach.thread {
            kick_thread(thread, reach.signal);
        }
    }
}

/// How a kick reaches the vCPU.
pub(super) struct Runner(Mutex<Reach>);

/// The lock is held while a kick is sent, so that the thread cannot end, and its identifier go to another one that does
/// not block the signal, in between.
struct Reach {
    /// Until the vCPU is dropped.
    immediate_exit: Option<Arc<ImmediateExit>>,
    /// The kernel's identifier of the thread that ran the vCPU last, for as long as that thread lives.
    thread: Option<i32>,
    signal: KickSignal,
}

impl Runner {
    pub(super) fn new(immediate_exit: Arc<ImmediateExit>, signal: KickSignal) -> Self {
        Self(Mutex::new(Reach { immediate_exit: Some(immediate_exit), thread: None, signal }))
    }

    pub(super) fn set_signal(&self, signal: KickSignal) {
        self.reach().signal = signal;
    }

    /// From now on kicks do nothing; none is on its way when this returns.
    pub(super) fn retire(&self) {
        let mut reach = self.reach();
        reach.thread = None;
        reach.immediate_exit = None;
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        lock(&self.0)
    }
}

/// A number for each thread that has run a vCPU. Unlike the kernel's identifiers, none is used a second time.
static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THIS_THREAD: ThisThread = ThisThread {
        number: NEXT_THREAD.fetch_add(1, Ordering::Relaxed),
        ran: RefCell::default(),
    };
}

/// A thread that runs vCPUs, or did. When it ends, no kick is sent to its identifier any more.
struct ThisThread {
    number: u64,
    ran: RefCell<Vec<Weak<Runner>>>,
}

impl Drop for ThisThread {
    fn drop(&mut self) {
        let this = current_thread_id();
        for runner in self.ran.get_mut().iter().filter_map(Weak::upgrade) {
            runner.reach().thread.take_if(|thread| *thread == this);
        }
    }
}

/// The number of the calling thread; `None` if it is ending, and past the point where it could run a vCPU.
pub(super) fn thread_number() -> Option<u64> {
    THIS_THREAD.try_with(|this| this.number).ok()
}

/// From now on kicks reach the calling thread, which must block the signal.
pub(super) fn reach_this_thread(runner: &Arc<Runner>) {
    // Refused only to a thread that is ending, which `thread_number` has turned away.
    let _ = THIS_THREAD.try_with(|this| {
        let (mut ran, new) = (this.ran.borrow_mut(), Arc::downgrade(runner));
        ran.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&new));
        ran.push(new);
        runner.reach().thread = Some(current_thread_id());
    });
}

/// Lets `signal` through while KVM runs the vCPU, and blocks every other one.
pub(super) fn install_signal_mask(fd: &VcpuFd, signal: KickSignal) -> Result<()> {
    // The kernel's sigset is 8 bytes, and the struct ends in a flexible array member that must hold it.
    #[repr(C)]
    struct Mask {
        header: kvm_signal_mask,
        sigset: [u8; 8],
    }
    const { assert!(offset_of!(Mask, sigset) == offset_of!(kvm_signal_mask, sigset)) }
    let sigset = signal.mask_while_running().to_ne_bytes();
    #[cfg(shuttle)]
    if matches!(fd, VcpuFd::Model { .. }) {
        return Ok(());
    }
    let mask = Mask { header: kvm_signal_mask { len: 8, ..Default::default() }, sigset };
    // SAFETY: the kernel reads the header and as many bytes behind it as its `len` says. The pointer is to all of `mask`,
    // which has them, and which lives until the call is over; the kernel keeps a copy.
    let result = unsafe { ioctl_with_ptr(fd, KVM_SET_SIGNAL_MASK(), &raw const mask) };
    if result == 0 {
        return Ok(());
    }
    let cause = std::io::Error::last_os_error();
    Err(Error::new(ErrorKind::Kvm, "KVM refused to set a vCPU's signal mask").with_source(cause))
}
