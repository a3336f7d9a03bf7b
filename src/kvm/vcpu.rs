//! A vCPU: run it, learn why it came back, kick it out of the guest.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kvm_bindings::{KVMIO, kvm_signal_mask};
use kvm_ioctls::{VcpuExit as RawExit, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::refused;
use super::slots::MemorySlots;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::GuestAddress;
use crate::sys::{KickSignal, SignalSet, current_thread_id, kick_thread};

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// A virtual processor. One thread runs it; [`VcpuKicker`] makes that thread come back from another one.
///
/// See `examples/primitives.rs` for a complete machine of some 40 lines.
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    kick: KickSignal,
    runner: Arc<Runner>,
    /// What `runner` says, to be read without its lock.
    bound_to: Option<i32>,
    // Behind `fd`, so that it goes last: the guest's memory outlives the vCPU that runs in it.
    _slots: Arc<MemorySlots>,
}

/// Why [`Vcpu::run`] returned.
#[derive(Debug)]
#[non_exhaustive]
pub enum VcpuExit<'a> {
    /// The guest reads `data.len() / width` times from a port; fill `data` before the next run.
    PioRead {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4. More than one access comes from a string instruction.
        width: u8,
        /// What the guest will see.
        data: &'a mut [u8],
    },
    /// The guest wrote `data.len() / width` times to a port.
    PioWrite {
        /// The port.
        port: u16,
        /// Bytes an access: 1, 2 or 4.
        width: u8,
        /// What the guest wrote.
        data: &'a [u8],
    },
    /// The guest reads where it has no RAM; fill `data` before the next run.
    MmioRead {
        /// Where it reads.
        gpa: GuestAddress,
        /// What the guest will see, 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest wrote where it has no RAM.
    MmioWrite {
        /// Where it wrote.
        gpa: GuestAddress,
        /// What it wrote, 1 to 8 bytes.
        data: &'a [u8],
    },
    /// The guest executed `hlt`. Not seen with an in-kernel irqchip, which waits itself.
    Halt,
    /// Triple fault.
    Shutdown,
    /// The guest asked KVM itself for a change of power state.
    SystemEvent(SystemEvent),
    /// The vCPU was kicked, or a signal arrived; nothing is to be done for the guest.
    Interrupted,
    /// The processor refused to enter the guest: the hardware's reason.
    FailedEntry(u64),
    /// KVM could not go on, for instance at an instruction that it cannot emulate: its suberror.
    InternalError(u32),
    /// An exit that this crate does not know: its number in KVM's interface.
    Unknown(u32),
}

/// What the guest asked KVM for (KVM_EXIT_SYSTEM_EVENT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SystemEvent {
    /// To be turned off.
    Shutdown,
    /// To be restarted.
    Reset,
    /// Something else: its number in KVM's interface.
    Other(u32),
}

impl SystemEvent {
    fn from_number(number: u32) -> Self {
        match number {
            kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Self::Shutdown,
            kvm_bindings::KVM_SYSTEM_EVENT_RESET => Self::Reset,
            other => Self::Other(other),
        }
    }
}

/// Who runs the vCPU at the moment: the kernel's identifier of the thread, if there is one.
///
/// The lock is held while a kick is sent, so that the thread cannot end, and its identifier go to another one that does
/// not block the signal, in between.
#[derive(Default)]
struct Runner(Mutex<Option<i32>>);

impl Runner {
    fn thread(&self) -> MutexGuard<'_, Option<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The vCPUs that a thread has run; when it ends they have no runner.
#[derive(Default)]
struct RunByThisThread(Vec<Weak<Runner>>);

thread_local! {
    static RUN_BY_THIS_THREAD: RefCell<RunByThisThread> = RefCell::default();
}

impl Drop for RunByThisThread {
    fn drop(&mut self) {
        let this = current_thread_id();
        for runner in self.0.iter().filter_map(Weak::upgrade) {
            runner.thread().take_if(|thread| *thread == this);
        }
    }
}

/// Makes the thread that runs a vCPU come back from the guest. Clones reach the same vCPU.
#[derive(Clone)]
pub struct VcpuKicker {
    runner: Arc<Runner>,
    signal: KickSignal,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, index: u32, slots: Arc<MemorySlots>) -> Self {
        Self { fd, index, kick: KickSignal::new(), runner: Arc::default(), bound_to: None, _slots: slots }
    }

    /// Its number in the VM, from 0 on.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// A handle with which other threads can interrupt [`run`](Self::run).
    pub fn kicker(&self) -> VcpuKicker {
        VcpuKicker { runner: self.runner.clone(), signal: self.kick }
    }

    /// Enters the guest and returns at the next exit. Blocks for as long as the guest runs or halts.
    ///
    /// The first call binds the vCPU to the calling thread and blocks all signals in that thread: the kick needs no
    /// signal handler, but a signal that a thread does not block can end the process.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] where KVM refuses to run it.
    pub fn run(&mut self) -> Result<VcpuExit<'_>> {
        self.fd.set_kvm_immediate_exit(0);
        self.enter()
    }

    fn enter(&mut self) -> Result<VcpuExit<'_>> {
        self.bind_to_this_thread()?;
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
                self.kick.take_pending();
                return Ok(VcpuExit::Interrupted);
            }
            Err(e) => return Err(refused(&format!("run vCPU {}", self.index), e)),
        };
        // SAFETY: the data lies in pages that KVM shares with us for as long as `self.fd` lives. The borrow is cut to that
        // of `self`, so it ends before the next run, and until then KVM does not touch the pages.
        match unsafe { Answer::detach(exit) } {
            Answer::Mmio(exit) => Ok(exit),
            Answer::PioRead(port, data) => Ok(VcpuExit::PioRead { port, width: self.pio_width(), data }),
            Answer::PioWrite(port, data) => Ok(VcpuExit::PioWrite { port, width: self.pio_width(), data }),
            Answer::Plain(exit) => Ok(exit),
            Answer::Other => Ok(self.exit_by_number()),
        }
    }

    /// Finishes the access that the last exit began, without running an instruction: until it gives
    /// [`VcpuExit::Interrupted`], the exits of the rest of that access. Then the vCPU's state is whole. Never blocks.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn finish_access(&mut self) -> Result<VcpuExit<'_>> {
        self.fd.set_kvm_immediate_exit(1);
        self.enter()
    }

    /// Tells the guest's clock that time passed in which it did not run, so that its watchdogs stay quiet.
    pub(crate) fn note_pause(&self) {
        // Refused where the guest has no kvm-clock, and then there is nothing to tell.
        let _ = self.fd.kvmclock_ctrl();
    }

    pub(super) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Makes kicks reach the calling thread, and blocks all signals in it. [`run`](Self::run) does it too.
    pub(crate) fn bind_to_this_thread(&mut self) -> Result<()> {
        if self.bound_to == Some(current_thread_id()) {
            return Ok(());
        }
        SignalSet::all().block();
        self.install_signal_mask()?;
        RUN_BY_THIS_THREAD.with_borrow_mut(|bound| bound.0.push(Arc::downgrade(&self.runner)));
        self.bound_to = Some(current_thread_id());
        *self.runner.thread() = self.bound_to;
        Ok(())
    }

    fn install_signal_mask(&self) -> Result<()> {
        // The kernel's sigset is 8 bytes, and the struct ends in a flexible array member that must hold it.
        #[repr(C)]
        struct Mask {
            header: kvm_signal_mask,
            sigset: [u8; 8],
        }
        let sigset = self.kick.mask_while_running().to_ne_bytes();
        let mask = Mask { header: kvm_signal_mask { len: 8, ..Default::default() }, sigset };
        // SAFETY: the kernel reads the header and as many bytes behind it as its `len` says, which are there.
        let result = unsafe { ioctl_with_ref(&self.fd, KVM_SET_SIGNAL_MASK(), &mask.header) };
        if result == 0 {
            return Ok(());
        }
        let cause = std::io::Error::last_os_error();
        let message = format!("KVM refused to set the signal mask of vCPU {}", self.index);
        Err(Error::new(ErrorKind::Kvm, message).with_source(cause))
    }

    /// Bytes an access, valid right after an exit for port I/O.
    fn pio_width(&mut self) -> u8 {
        // SAFETY: the member of the union is a plain integer, so any bytes there are a valid value.
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

/// An exit whose data is no longer tied to the descriptor that gave it.
enum Answer<'a> {
    Mmio(VcpuExit<'a>),
    PioRead(u16, &'a mut [u8]),
    PioWrite(u16, &'a [u8]),
    Plain(VcpuExit<'static>),
    Other,
}

impl<'a> Answer<'a> {
    /// Sorts an exit, so that the descriptor can be asked for what `kvm-ioctls` leaves out.
    ///
    /// # Safety
    /// The memory behind the exit's slices must stay valid and unaliased for `'a`.
    unsafe fn detach(exit: RawExit<'_>) -> Self {
        // SAFETY: both closures only give a slice the lifetime that the caller vouches for.
        let shared = |data: &[u8]| unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) };
        // SAFETY: as above.
        let unique = |data: &mut [u8]| unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr(), data.len()) };
        match exit {
            RawExit::IoIn(port, data) => Self::PioRead(port, unique(data)),
            RawExit::IoOut(port, data) => Self::PioWrite(port, shared(data)),
            RawExit::MmioRead(gpa, data) => {
                Self::Mmio(VcpuExit::MmioRead { gpa: GuestAddress(gpa), data: unique(data) })
            }
            RawExit::MmioWrite(gpa, data) => {
                Self::Mmio(VcpuExit::MmioWrite { gpa: GuestAddress(gpa), data: shared(data) })
            }
            other => plain_exit(&other).map_or(Self::Other, Self::Plain),
        }
    }
}

/// The exits that carry no borrowed data and whose values the wrapper already holds.
fn plain_exit(exit: &RawExit<'_>) -> Option<VcpuExit<'static>> {
    Some(match exit {
        RawExit::Hlt => VcpuExit::Halt,
        RawExit::Shutdown => VcpuExit::Shutdown,
        RawExit::SystemEvent(event, _) => VcpuExit::SystemEvent(SystemEvent::from_number(*event)),
        RawExit::FailEntry(reason, _) => VcpuExit::FailedEntry(*reason),
        RawExit::Intr | RawExit::IrqWindowOpen => VcpuExit::Interrupted,
        _ => return None,
    })
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        // A later kick must not reach a thread that has nothing to do with this vCPU any more.
        *self.runner.thread() = None;
    }
}

impl VcpuKicker {
    /// Makes [`Vcpu::run`] return [`VcpuExit::Interrupted`], now or, if the thread is not in it, at its next call. Does
    /// nothing before the first run. Never blocks.
    pub fn kick(&self) {
        let runner = self.runner.thread();
        if let Some(thread) = *runner {
            kick_thread(thread, self.signal);
        }
    }
}

impl std::fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}
