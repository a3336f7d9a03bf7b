//! A vCPU: run it, and learn why it came back.

use std::sync::Arc;

use super::exit::{Answer, VcpuExit};
use super::fd::VcpuFd;
use super::immediate_exit::{FINISHING, ImmediateExit, KICKED};
use super::kick::{Runner, VcpuKicker, install_signal_mask, reach_this_thread, thread_number};
use super::refused::refused;
use super::slots::MemorySlots;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{KickSignal, SignalSet};

/// A virtual processor. One thread runs it; [`VcpuKicker`] makes that thread come back from another one.
///
/// It may outlive its [`KvmVm`](super::KvmVm) and every handle to the memory that it runs in. See `examples/primitives.rs`
/// for a complete machine of some 40 lines.
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    kick: KickSignal,
    immediate_exit: Arc<ImmediateExit>,
    runner: Arc<Runner>,
    /// The thread that blocks all signals and that kicks reach.
    bound_to: Option<u64>,
    /// The host's CPU can run the guest's time-stamp counter at another speed than its own.
    scales_tsc: bool,
    // Behind `fd` and `immediate_exit`, which keep KVM's half alive, so that it goes last: the guest's memory outlives the
    // vCPU that runs in it.
    _slots: Arc<MemorySlots>,
}

impl Vcpu {
    /// One whose guest does nothing until it is kicked. `in_guest` is told when it enters the guest, and when it leaves.
    #[cfg(shuttle)]
    pub(crate) fn model(index: u32, in_guest: impl Fn(bool) + Send + 'static) -> Self {
        let fd = VcpuFd::Model { immediate_exit: Arc::default(), in_guest: Box::new(in_guest) };
        Self::new(fd, index, Arc::default(), false).unwrap()
    }

    pub(super) fn new(fd: impl Into<VcpuFd>, index: u32, slots: Arc<MemorySlots>, scales_tsc: bool) -> Result<Self> {
        let fd = fd.into();
        let (kick, immediate_exit) = (KickSignal::default(), Arc::new(ImmediateExit::map(&fd)?));
        let runner = Arc::new(Runner::new(immediate_exit.clone(), kick));
        Ok(Self { fd, index, kick, immediate_exit, runner, bound_to: None, scales_tsc, _slots: slots })
    }

    /// Its number in the VM, from 0 on.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// A handle with which other threads can interrupt [`run`](Self::run).
    pub fn kicker(&self) -> VcpuKicker {
        VcpuKicker(self.runner.clone())
    }

    /// Chooses the signal by which kickers, also those that exist already, reach the thread. The default is
    /// [`DEFAULT_KICK_SIGNAL`](crate::DEFAULT_KICK_SIGNAL); see [`VmBuilder::kick_signal`](crate::VmBuilder::kick_signal)
    /// for which are allowed, and what to mind.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a number that is no standard signal, or one that cannot be used so.
    pub fn set_kick_signal(&mut self, signal: i32) -> Result<()> {
        self.kick_by(KickSignal::new(signal)?);
        Ok(())
    }

    pub(crate) fn kick_by(&mut self, signal: KickSignal) {
        self.runner.set_signal(signal);
        self.take_pending_kick();
        self.kick = signal;
        // The next run installs the mask for it.
        self.bound_to = None;
    }

    /// Enters the guest and returns at the next exit. Blocks for as long as the guest runs or halts.
    ///
    /// The first call binds the vCPU to the calling thread and blocks all signals in that thread, for good: the kick needs
    /// no signal handler, but a signal that a thread does not block can end the process. Don't unblock the kick's signal.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if KVM refuses to run it; [`ErrorKind::InvalidState`] if the calling thread is ending, and runs
    /// the destructors of its thread-local values.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        self.enter(false)
    }

    /// Finishes the access that the last exit began, without running an instruction: until it gives
    /// [`VcpuExit::Interrupted`], the exits of the rest of that access. Then the vCPU's state is whole. Never blocks. A kick
    /// that comes meanwhile is left for the next [`run`](Self::run) to report.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn finish_access(&mut self) -> Result<VcpuExit<'_>> {
        self.enter(true)
    }

    fn enter(&mut self, finishing: bool) -> Result<VcpuExit<'_>> {
        self.bind_to_this_thread()?;
        if finishing {
            self.immediate_exit.set(FINISHING);
        }
        let exit = self.fd.run();
        self.immediate_exit.clear(FINISHING);
        let exit = match exit {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
                if !finishing {
                    // A kick that comes from here on is either part of the one that is reported now, or seen by the next
                    // run: what made its sender kick was done before, so the caller sees it after this returns.
                    self.immediate_exit.clear(KICKED);
                    self.kick.take_pending();
                }
                return Ok(VcpuExit::Interrupted);
            }
            Err(e) => return Err(refused(&format!("run vCPU {}", self.index), e)),
        };
        // SAFETY: the data lies in pages that KVM shares with us, in the mapping that `self.fd` owns. The borrow is cut to
        // that of `self`, mutable, so it ends before the next run, the drop, or any other call for this vCPU; until then
        // KVM does not touch the data, and nothing of ours but the borrow does.
        match unsafe { Answer::detach(exit) } {
            Answer::Mmio(exit) => Ok(exit),
            Answer::PioRead(port, data) => Ok(VcpuExit::PioRead { port, width: self.pio_width(), data }),
            Answer::PioWrite(port, data) => Ok(VcpuExit::PioWrite { port, width: self.pio_width(), data }),
            Answer::Plain(exit) => Ok(exit),
            Answer::Other => Ok(self.exit_by_number()),
        }
    }

    pub(super) fn scales_tsc(&self) -> bool {
        self.scales_tsc
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Makes kicks reach the calling thread, and blocks all signals in it. [`run`](Self::run) does it too.
    pub(crate) fn bind_to_this_thread(&mut self) -> Result<()> {
        let this = thread_number().ok_or_else(|| {
            let message = format!("vCPU {} cannot be run by a thread that is ending", self.index);
            Error::new(ErrorKind::InvalidState, message)
        })?;
        if self.bound_to != Some(this) {
            SignalSet::all().block();
            install_signal_mask(&self.fd, self.kick)?;
            reach_this_thread(&self.runner);
            self.bound_to = Some(this);
        }
        Ok(())
    }

    /// A signal that was sent, and not seen by `KVM_RUN`, does not stay behind in the thread.
    fn take_pending_kick(&self) {
        if self.bound_to.is_some() && self.bound_to == thread_number() {
            self.kick.take_pending();
        }
    }

    /// Bytes an access, valid right after an exit for port I/O.
    fn pio_width(&mut self) -> u8 {
        // SAFETY: the member of the union is a plain integer, so any bytes there are a valid value. The exit's data, which
        // is borrowed meanwhile, lies in another page.
        unsafe { self.fd.get_kvm_run().__bindgen_anon_1.io.size }
    }

    fn exit_by_number(&mut self) -> VcpuExit<'static> {
        let run = self.fd.get_kvm_run();
        if run.exit_reason == kvm_bindings::KVM_EXIT_INTERNAL_ERROR {
            // SAFETY: the exit reason says that this member of the union was filled, and it is plain integers.
            return VcpuExit::InternalError(unsafe { run.__bindgen_anon_1.internal }.suberror);
        }
        VcpuExit::Unknown(run.exit_reason)
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // A later kick must not reach a thread that has nothing to do with this vCPU any more.
        self.runner.retire();
        self.take_pending_kick();
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}
