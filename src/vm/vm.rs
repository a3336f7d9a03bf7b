//! What a host program keeps of a VM: start, pause, resume, stop, wait, status.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::devices::Devices;
use super::discard::{self, Discarded};
use super::exit::{Exit, Status};
use super::lifecycle::Lifecycle;
use super::metrics::VcpuCounters;
use super::seat::Seat;
use super::threads::ThreadSetup;
use super::vcpu::{self, Duty};
use crate::config::{VmConfig, vcpus as so_many};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{CpuidEntry, Vcpu};
use crate::logging::{LogLevel, Logger};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sys::{ThreadHandle, check_may_wait, do_elsewhere, lock, lock_if_free, may_wait};

/// What [`Vm::stop`] promises, less a margin for its own way back.
const STOP_LIMIT: Duration = Duration::from_millis(90);

/// How long a pause waits, if nothing else is said.
pub(super) const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// A virtual machine: built by [`Vm::builder`], run by its own threads, controlled from any thread through this handle.
///
/// Dropping it stops the VM and waits for its threads. Nothing of it remains then: no thread, descriptor or mapping, except what
/// you gave it (an [`IoThread`](crate::IoThread) of yours goes on), and what dead storage holds: a disk's helper thread that the
/// kernel does not let go of stays until it does. On an [I/O thread](crate::event#what-a-callback-may-do), which must not wait,
/// dropping it is the same as [`discard`](Vm::discard), and so it is everywhere if [asked for](Vm::set_discard_on_drop).
///
/// ```no_run
/// use vmcell::{Boot, Console, Disk, Exit, Vm};
///
/// let vm = Vm::builder()
///     .vcpus(2)
///     .memory_mib(256)
///     .boot(Boot::linux("vmlinuz").cmdline("console=ttyS0 root=/dev/vda"))
///     .disk(Disk::open("root.img")?)
///     .console(Console::stdio())
///     .build()?;
/// vm.start()?;
/// match vm.wait()? {
///     Exit::Shutdown => println!("the guest turned itself off"),
///     other => println!("the guest ended otherwise: {other:?}"),
/// }
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct Vm {
    lifecycle: Arc<Lifecycle>,
    pub(super) devices: Arc<Devices>,
    /// Of each vCPU, by index.
    pub(super) seats: Vec<Arc<Seat>>,
    pub(super) threads: Mutex<Vec<ThreadHandle>>,
    /// By index.
    pub(super) counters: Vec<Arc<VcpuCounters>>,
    pub(super) setup: ThreadSetup,
    pub(super) saves: Arc<Saves>,
    /// Held while devices follow the vCPUs into or out of a pause.
    pub(super) transition: Mutex<()>,
    /// Dropping must not block.
    discards: AtomicBool,
}

/// What a snapshot needs beside what runs.
pub(super) struct Saves {
    pub(super) config: VmConfig,
    pub(super) memory: GuestMemory,
    /// Those of a vCPU that are saved.
    pub(super) msrs: &'static [u32],
    /// What the guest was told of its CPUs.
    pub(super) cpu: Vec<CpuidEntry>,
    /// Where the guest finds the identifier of its generation, if it was told of one.
    pub(super) generation: Option<GuestAddress>,
    /// What takes the place of the RAM while the VM is suspended.
    #[cfg(feature = "save")]
    pub(super) away: Mutex<Option<super::saved::Away>>,
    /// Who waits for it to go on, and breaks off what suspends it.
    #[cfg(feature = "save")]
    pub(super) wanted: super::wanted::Wanted,
    #[cfg(feature = "secret")]
    pub(super) secrets: Arc<super::delivery::Secrets>,
}

impl Vm {
    pub(super) fn new(
        lifecycle: Arc<Lifecycle>,
        devices: Devices,
        vcpus: Vec<Vcpu>,
        setup: ThreadSetup,
        saves: Saves,
    ) -> Self {
        let counters = vcpus.iter().map(|_| Arc::default()).collect();
        Self {
            lifecycle,
            counters,
            devices: Arc::new(devices),
            seats: vcpus.into_iter().map(|vcpu| Arc::new(Seat::new(vcpu))).collect(),
            threads: Mutex::default(),
            setup,
            saves: Arc::new(saves),
            transition: Mutex::default(),
            discards: AtomicBool::new(false),
        }
    }

    /// Starts the vCPUs, each in a thread of its own, and returns at once; or once
    /// [`on_thread_start`](crate::VmBuilder::on_thread_start) has returned on each of them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] unless the VM is [`Status::Ready`]. [`ErrorKind::Host`] if the host gives no more threads, does not let
    /// one run where [affinity](crate::VmBuilder::affinity) or [core scheduling](crate::VmBuilder::core_scheduling) want it, or if
    /// `on_thread_start` fails or panics; then the VM has ended.
    pub fn start(&self) -> Result<()> {
        let count = self.seats.len();
        self.lifecycle.start(count)?;
        #[cfg(feature = "secret")]
        self.saves.secrets.begin();
        // Those of a fork stand still until now.
        self.devices.resume_devices();
        self.setup.logger.say(LogLevel::Info, "vm", || format!("starts with {}", so_many(count)));
        // Threads whose preparation may well be refused wait at their gates until all are there.
        let mut gates = Vec::new();
        let begun = (0..).zip(&self.seats).try_for_each(|(index, seat)| {
            let (gate, opened) = channel();
            let (thread, prepared) = self.spawn(index, seat, opened)?;
            gates.push(gate);
            lock(&self.threads).push(thread);
            prepared
        });
        if let Err(error) = &begun {
            self.lifecycle.end(Exit::Failed(error.clone()));
            (gates.len()..count).for_each(|_| self.vcpu_not_started());
        }
        begun
    }

    /// Makes vCPUs and devices stand still. Returns when no vCPU is in the guest, no request is in flight, and no device
    /// touches the guest's memory; blocks until then, at most for ten seconds. A paused VM may be paused again, which does
    /// nothing.
    ///
    /// The guest's clocks go on: after [`resume`](Self::resume) it sees that time has passed.
    ///
    /// # Errors
    /// As [`pause_within`](Self::pause_within).
    pub fn pause(&self) -> Result<()> {
        self.pause_within(PAUSE_LIMIT)
    }

    /// Does the same as [`pause`](Self::pause), but blocks for at most `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the VM was not started or has ended, also if it ends meanwhile, and on an [I/O
    /// thread](crate::event#what-a-callback-may-do); [`ErrorKind::Timeout`] if a device still had requests in flight, or held a
    /// vCPU that resets it, when the limit passed, and then the message names the device, or if a vCPU had not left the guest yet. The
    /// VM goes on as if nothing had been asked.
    pub fn pause_within(&self, limit: Duration) -> Result<()> {
        check_may_wait("pause a VM")?;
        let _one_at_a_time = lock(&self.transition);
        self.stand_still(limit)
    }

    /// Pauses, by the one who holds `transition`.
    pub(super) fn stand_still(&self, limit: Duration) -> Result<()> {
        if self.lifecycle.status() == Status::Paused {
            return Ok(());
        }
        let begun = Instant::now();
        self.lifecycle.pause(begun.checked_add(limit)).map_err(|error| match error.kind() {
            ErrorKind::Timeout => self.devices.blame(error),
            _ => error,
        })?;
        let paused = self.devices.pause_devices(limit.saturating_sub(begun.elapsed()));
        if paused.is_err() {
            // The VM goes on as if nothing had been asked, unless it has ended meanwhile.
            let _ = self.lifecycle.resume();
        }
        paused
    }

    /// Lets vCPUs and devices go on where they were. Does nothing to a VM that runs. Blocks while another thread is in
    /// [`pause`](Self::pause), until a suspension that is under way was broken off, and while the RAM of a suspended VM is read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the VM was not started or has ended, and on an [I/O thread](crate::event#what-a-callback-may-do)
    /// while another thread is in `pause`, or if the VM was suspended. Of a suspended VM, those of reading its file.
    pub fn resume(&self) -> Result<()> {
        // A pause may be waiting for the very thread that calls.
        let one_at_a_time = if may_wait() { Some(self.wait_for_transition()) } else { lock_if_free(&self.transition) };
        let Some(_one_at_a_time) = one_at_a_time else {
            let message = "a VM cannot be resumed on an I/O thread while another thread is pausing it";
            return Err(Error::new(ErrorKind::InvalidState, message));
        };
        self.go_on()
    }

    /// Breaks a suspension off that is under way; a pause ends by itself.
    fn wait_for_transition(&self) -> MutexGuard<'_, ()> {
        #[cfg(feature = "save")]
        let _wanted = self.saves.wanted.add();
        lock(&self.transition)
    }

    /// Resumes, by the one who holds `transition`.
    pub(super) fn go_on(&self) -> Result<()> {
        #[cfg(feature = "save")]
        self.take_ram_back()?;
        self.lifecycle.resume()?;
        self.devices.resume_devices();
        Ok(())
    }

    /// Ends the VM from outside, in whatever state it is. From the moment it returns, the guest executes nothing.
    ///
    /// Returns within 100 ms whatever the guest or a backend does. The guest gets no chance to write its disks back. A VM
    /// that has ended already stays as it is. If threads of the VM have something left to do outside of the guest, such as the
    /// last output to a slow reader, its status is [`Status::Ending`] for a moment.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if a vCPU's thread did not report back in that time, because the host did not run it (a busy host, or one
    /// whose kernel waits for memory) or [`on_thread_start`](crate::VmBuilder::on_thread_start) holds it. It was told to leave, and enters
    /// the guest no more; [`wait`](Self::wait) or dropping the VM waits for it.
    pub fn stop(&self) -> Result<()> {
        let began = Instant::now();
        self.request_stop();
        self.lifecycle.wait_stopped(began.checked_add(STOP_LIMIT).unwrap_or(began))
    }

    /// Asks the guest to shut down, as the power button of a PC does, and returns at once.
    ///
    /// It is a request: a guest in which nothing listens to the button goes on, so that a caller waits with
    /// [`wait_timeout`](Self::wait_timeout), and then calls [`stop`](Self::stop). Linux hears it once the driver `button` is
    /// loaded; systemd's logind then turns the machine off, unless it is configured otherwise. A paused guest is asked when it goes
    /// on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the VM was not started or has ended, and if it has no ACPI tables
    /// ([`Discovery::Cmdline`](crate::Discovery::Cmdline)), which is where a guest finds the button.
    pub fn request_shutdown(&self) -> Result<()> {
        self.expect_guest("press the power button of")?;
        if self.devices.press_power_button() {
            return Ok(());
        }
        let message = "the guest has no ACPI tables, and so no power button; Discovery::Acpi gives it one";
        Err(Error::new(ErrorKind::InvalidState, message))
    }

    /// Refuses what only a guest can do that was started and has not ended.
    pub(super) fn expect_guest(&self, call: &str) -> Result<()> {
        self.lifecycle.expect_guest(call)
    }

    /// What the VM is called in a message.
    pub(super) fn the_vm(&self) -> String {
        self.lifecycle.the_vm()
    }

    /// Tells the VM to end, and does not wait for that: [`wait`](Self::wait) does, or [`ended_fd`](Self::ended_fd) tells when it
    /// has. Otherwise it is the same as [`stop`](Self::stop). Never blocks.
    pub fn request_stop(&self) {
        self.devices.close();
        // Threads that have used up their share would not leave in time.
        self.setup.cgroup.iter().for_each(|cgroup| cgroup.lift());
        self.lifecycle.end(Exit::Stopped);
        self.end_console_of_none();
    }

    /// The last vCPU ends the console; this does if there never was one.
    fn end_console_of_none(&self) {
        if self.lifecycle.status() == Status::Ended {
            self.devices.end_console();
        }
    }

    /// Stops the VM and frees it, as dropping it does, but on a thread that is made for this and ends then. Never blocks.
    ///
    /// If the host gives no thread, the VM is stopped all the same, and freed by the thread of a later call.
    pub fn discard(self) {
        self.set_discard_on_drop(false);
        self.request_stop();
        let counted = Discarded::count();
        do_elsewhere(move || {
            drop(self);
            drop(counted);
        });
    }

    /// Returns how many VMs in this process were [discarded](Self::discard), or dropped on an I/O thread, and are not freed yet.
    pub fn discarded() -> usize {
        discard::discarded()
    }

    /// A descriptor that is readable while no [discarded](Self::discard) VM is left in this process, for an event loop that ends when all
    /// has been freed. Do not read from it. It is made by the first call, and stays open.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] if the process may open no more descriptors.
    pub fn discards_done_fd() -> Result<BorrowedFd<'static>> {
        discard::none_left()
    }

    /// Sets whether dropping the VM never blocks, because it is the same as [`discard`](Self::discard) then. The default is no: dropping
    /// waits for the VM's threads.
    ///
    /// It is for programs in which a VM may be dropped on a thread that others need: by a future that is cancelled, for instance. The guest
    /// is told to stop before the drop returns. The rest, up to the backends' own `drop`, happens on the thread that `discard` makes.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// let vm = vmcell::Vm::builder().boot(vmcell::Boot::linux("vmlinuz")).build()?;
    /// vm.set_discard_on_drop(true);
    /// vm.start()?;
    /// drop(vm); // returns at once
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_discard_on_drop(&self, discards: bool) {
        self.discards.store(discards, Ordering::Relaxed);
    }

    /// Blocks until the VM has ended, and returns how it ended. Several threads may call this, and it may be called again, and
    /// before the start.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] in a [callback](crate::event#what-a-callback-may-do).
    pub fn wait(&self) -> Result<Exit> {
        check_may_wait("wait for a VM")?;
        self.lifecycle.wait(None)
    }

    /// Does the same as [`wait`](Self::wait), but for at most `limit`. With zero it only looks, on any thread.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the VM had not ended by then, or [`ErrorKind::InvalidState`] in a
    /// [callback](crate::event#what-a-callback-may-do) if `limit` is not zero.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Exit> {
        if !limit.is_zero() {
            check_may_wait("wait for a VM")?;
        }
        self.lifecycle.wait(Instant::now().checked_add(limit))
    }

    /// What the VM is doing. Never blocks. It is [`Status::Ended`] exactly when [`wait`](Self::wait) returns at once.
    pub fn status(&self) -> Status {
        self.lifecycle.status()
    }

    /// A descriptor that becomes readable when the VM has ended, for `poll`, `epoll` or an event loop, which can wait for many VMs at
    /// once. Do not read from it: it stays readable.
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.lifecycle.ended().as_fd()
    }

    fn spawn(&self, index: u32, seat: &Arc<Seat>, gate: Receiver<()>) -> Result<(ThreadHandle, Result<()>)> {
        let counters = usize::try_from(index).ok().and_then(|index| self.counters.get(index));
        let (devices, lifecycle, logger) = (self.devices.clone(), self.lifecycle.clone(), self.setup.logger.clone());
        #[cfg(feature = "secret")]
        let secrets = Arc::clone(&self.saves.secrets);
        let duty = Duty {
            index,
            seat: Arc::clone(seat),
            buses: self.devices.buses().clone(),
            lifecycle: self.lifecycle.clone(),
            on_last: Arc::new(move || {
                guest_has_ended(&logger, &lifecycle, &devices);
                #[cfg(feature = "secret")]
                secrets.guest_has_ended();
            }),
            setup: self.setup.clone(),
            counters: counters.cloned().unwrap_or_default(),
        };
        vcpu::spawn(duty, gate)
    }

    /// Does at the end what the thread of a vCPU would have done that could not be made.
    fn vcpu_not_started(&self) {
        if self.lifecycle.is_last_vcpu() {
            guest_has_ended(&self.setup.logger, &self.lifecycle, &self.devices);
        }
        self.lifecycle.vcpu_finished();
    }
}

/// What is left to do when no vCPU is in the guest any more. It says how the VM has ended, and what its console lost.
fn guest_has_ended(logger: &Logger, lifecycle: &Lifecycle, devices: &Devices) {
    devices.guest_has_ended();
    let (dropped, lost) = devices.tell_console_missed();
    if dropped > 0 || lost > 0 {
        logger.say(LogLevel::Warn, "console", || {
            format!(
                "{dropped} bytes of output did not reach a reader because it was too slow, {lost} because it failed"
            )
        });
    }
    let exit = lifecycle.exit().unwrap_or(Exit::Stopped);
    let level = match &exit {
        Exit::Failed(_) => LogLevel::Error,
        crash if crash.is_crash() => LogLevel::Warn,
        _ => LogLevel::Info,
    };
    logger.say(level, "vm", || format!("ended: {exit}"));
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !may_wait() || self.discards.load(Ordering::Relaxed) {
            let (seats, threads) = (mem::take(&mut self.seats), mem::take(&mut *lock(&self.threads)));
            let (lifecycle, devices) = (Arc::clone(&self.lifecycle), Arc::clone(&self.devices));
            let (setup, counters, saves) = (self.setup.clone(), self.counters.clone(), Arc::clone(&self.saves));
            let rest = Self {
                lifecycle,
                devices,
                seats,
                threads: Mutex::new(threads),
                counters,
                setup,
                saves,
                transition: Mutex::default(),
                discards: AtomicBool::new(false),
            };
            return rest.discard();
        }
        // The one order in which everything ends: the guest first, then the threads that served it, then what they used.
        self.request_stop();
        lock(&self.threads).drain(..).for_each(ThreadHandle::join);
        // Of a VM that never ran; otherwise each thread has dropped its own.
        self.seats.iter().for_each(|seat| drop(seat.take()));
        self.devices.detach();
    }
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("name", &self.name()).field("status", &self.status()).finish_non_exhaustive()
    }
}
