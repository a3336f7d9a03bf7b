//! What a host program sees of a VM, and reaches in it, while the VM runs or after that.

use super::failures::DeviceFailure;
use super::metrics::Metrics;
use super::threads::{ThreadRole, VmThread};
use super::vm::Vm;
use crate::balloon::BalloonHandle;
use crate::block::DiskHandle;
use crate::config::RateLimit;
use crate::console::ConsoleStatus;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::MemoryUse;
use crate::net::NicHandle;
use crate::sys::lock;
use crate::vsock::VsockHandle;

impl Vm {
    /// Returns a handle that changes a disk of the VM, counted from 0 in the order in which the guest finds them. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the VM has no such disk.
    pub fn disk_handle(&self, index: usize) -> Result<DiskHandle> {
        handle("disk", &self.devices.disk_handles(), index)
    }

    /// Returns a handle that changes a network card of the VM, counted from 0 in the order in which the guest finds them. Never
    /// blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the VM has no such card.
    pub fn nic_handle(&self, index: usize) -> Result<NicHandle> {
        handle("nic", &self.devices.nic_handles(), index)
    }

    /// Sets how many random bytes the guest gets at most, or that nothing limits them, at once and also for a request that waits. What has not been
    /// used of a limit stays, up to its new burst. A fork begins with what its source was built with. Never blocks.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().build()?;
    /// vm.set_rng_rate(Some(vmcell::RateLimit::per_second(1024).burst(4096)))?;
    /// vm.set_rng_rate(None)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the VM has no [rng](crate::VmBuilder::rng), or the limit is out of range. Then it stays as it is.
    pub fn set_rng_rate(&self, rate: Option<RateLimit>) -> Result<()> {
        let none = || Error::new(ErrorKind::InvalidConfig, "the VM has no rng; VmBuilder::rng gives it one");
        self.devices.rng_handle().ok_or_else(none)?.set_rate(rate)
    }

    /// Sets how many bytes of the guest's output the console's sinks get, as [`console_rate`](crate::VmBuilder::console_rate) does, or that
    /// nothing limits them, at once and also for output that waits. What has not been used of a limit stays, up to its new burst. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a limit that is out of range. Then it stays as it is.
    pub fn set_console_rate(&self, rate: Option<RateLimit>) -> Result<()> {
        rate.map_or(Ok(()), |rate| rate.validate()).map_err(|error| error.about("the console"))?;
        self.devices.set_console_rate(rate);
        Ok(())
    }

    /// Returns a handle to the VM's balloon. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the VM has no [balloon](crate::VmBuilder::balloon).
    pub fn balloon(&self) -> Result<BalloonHandle> {
        let none = || Error::new(ErrorKind::InvalidConfig, "the VM has no balloon; VmBuilder::balloon gives it one");
        self.devices.balloon_handle().cloned().ok_or_else(none)
    }

    /// Returns what connects to the guest and listens to it, without a network. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the VM has no [vsock](crate::VmBuilder::vsock).
    pub fn vsock(&self) -> Result<VsockHandle> {
        let missing = || Error::new(ErrorKind::InvalidConfig, "a vsock was asked for, and the VM has none");
        self.devices.vsock_handle().cloned().ok_or_else(missing)
    }

    /// Types `bytes` into the guest's console and returns how many there was room for. Never blocks.
    ///
    /// What has no room is for the caller to send again, once the guest has read. A [`Console::stdio`](crate::Console::stdio)
    /// sends its own input this way too.
    pub fn write_console(&self, bytes: &[u8]) -> usize {
        self.devices.write_console(bytes)
    }

    /// What became of the guest's console output, for each sink: what was delivered, and what was lost and why. Never blocks.
    pub fn console_status(&self) -> ConsoleStatus {
        self.devices.console_status()
    }

    /// How many bytes of the guest's console output were dropped since a reader did not read. Never blocks.
    pub fn console_dropped(&self) -> u64 {
        self.console_status().dropped()
    }

    /// The name that the VM was given, or an empty one.
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// The VM's threads: those of its vCPUs, if it was started, and then the I/O threads that it made for itself. An
    /// [`IoThread`](crate::IoThread) of yours [tells by itself](crate::IoThread::tid) which thread it is.
    ///
    /// A thread of a vCPU that has ended is still listed, but the kernel may give its identifier to another thread. Blocks only for
    /// the moment that a new thread takes to tell.
    pub fn threads(&self) -> Vec<VmThread> {
        let started = lock(&self.threads).len();
        let vcpus = (0..).zip(self.counters.iter().take(started));
        let vcpus = vcpus.map(|(index, counters)| VmThread { role: ThreadRole::Vcpu(index), tid: counters.tid() });
        vcpus.chain(self.devices.threads()).collect()
    }

    /// Returns what the VM has done so far. Any thread may ask, in any state of the VM, and as often as it likes: it costs one short
    /// system call for each thread, and waits for none of them.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().build()?;
    /// let metrics = vm.metrics();
    /// println!("vCPU 0 has run for {:?}", metrics.vcpus[0].cpu_time);
    /// println!("{}", metrics.to_openmetrics());
    /// # Ok(())
    /// # }
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics {
            vm: self.name().to_owned(),
            vcpus: self.counters.iter().map(|counters| counters.read()).collect(),
            io_threads: self.devices.thread_metrics(),
            devices: self.devices.metrics(),
            console: self.devices.console_metrics(),
            memory: None,
        }
    }

    /// Returns the [metrics](Self::metrics), and with them how much memory the host keeps for the guest's RAM, at the cost of
    /// [`memory_use`](Self::memory_use).
    ///
    /// # Errors
    /// Those of [`memory_use`](Self::memory_use).
    pub fn metrics_with_memory(&self) -> Result<Metrics> {
        Ok(Metrics { memory: Some(self.memory_use()?), ..self.metrics() })
    }

    /// Returns how much memory the host keeps for the guest's RAM: what is this VM's alone, and what it shares with a snapshot. What the VM takes
    /// beside its RAM is less than 100 KiB. Any thread may ask, in any state of the VM; it takes about a millisecond for each GiB, since the kernel
    /// is asked of each page, which is why only [`metrics_with_memory`](Self::metrics_with_memory) has it.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] without `/proc`, in a jail for instance.
    pub fn memory_use(&self) -> Result<MemoryUse> {
        self.saves.memory.usage()
    }

    /// Returns the devices that have failed since the VM was built, in the order in which the guest finds them. For each there is
    /// the last failure and how many there were, so a guest that fails all the time costs no memory. Any thread may ask, in any
    /// state of the VM; it waits for none.
    ///
    /// A device fails if its driver breaks a queue, and if the device or its backend panics, breaks a rule or [gives
    /// up](crate::event::Io::give_up). Its driver is told that the device needs a reset, and the VM goes on. A request that fails is
    /// not a failure of its device: [`metrics`](Self::metrics) counts those.
    ///
    /// ```no_run
    /// # fn main() -> vmcell::Result<()> {
    /// # let vm = vmcell::Vm::builder().build()?;
    /// for failure in vm.device_failures() {
    ///     println!("{failure}"); // disk 0 (data.img): the backend panicked: index out of bounds
    ///     if failure.failure.cause.is_final() {
    ///         vm.stop()?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn device_failures(&self) -> Vec<DeviceFailure> {
        self.devices.failures()
    }

    /// Measures each turn of the VM's own I/O threads from now on, for [`metrics`](Self::metrics); see
    /// [`IoThread::measure_turns`](crate::IoThread::measure_turns) for what that costs.
    pub fn measure_turns(&self) {
        self.devices.measure_turns();
    }
}

fn handle<H: Clone>(what: &str, handles: &[&H], index: usize) -> Result<H> {
    handles.get(index).map(|handle| H::clone(handle)).ok_or_else(|| {
        let count = handles.len();
        let message = format!("{what} {index} was asked for, counted from 0, and the VM has {count}");
        Error::new(ErrorKind::InvalidConfig, message)
    })
}
