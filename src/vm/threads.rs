//! The threads of a VM: what they are called, what they do before anything else, and how a host program finds them.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::cgroup::VmCgroup;
use crate::config::{Affinity, cpu_list};
use crate::confine::ThreadFilter;
use crate::error::{Error, ErrorKind, Result};
use crate::host::CoreScheduling;
use crate::logging::{LogLevel, Logger};
use crate::sys::{CoreGroup, CpuSet, allowed_cpus, block_all_signals, thread_name};

/// What a thread of a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ThreadRole {
    /// It runs the vCPU of this index.
    Vcpu(u32),
    /// It serves the VM's devices and its console.
    Io,
    /// It serves one device alone: the one at this place, from 0 on, in the order in which the guest finds them.
    DeviceIo(u32),
}

/// As at the end of the thread's name: `vcpu0`, `io`, `io0`.
impl fmt::Display for ThreadRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpu(index) => f.pad(&format!("vcpu{index}")),
            Self::Io => f.pad("io"),
            Self::DeviceIo(index) => f.pad(&format!("io{index}")),
        }
    }
}

/// One thread of a VM; see [`Vm::threads`](crate::Vm::threads).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VmThread {
    /// What it does.
    pub role: ThreadRole,
    /// The kernel's identifier of it, as in `/proc/self/task`.
    pub tid: i32,
}

/// What a host program does on a new thread.
pub(super) type OnStart = Arc<dyn Fn(ThreadRole) -> io::Result<()> + Send + Sync>;

/// What the threads of a VM have in common. A clone is another handle to the same.
#[derive(Clone, Default)]
pub(super) struct ThreadSetup {
    /// The VM's name.
    pub(super) name: Arc<str>,
    pub(super) affinity: Arc<Affinity>,
    /// Where its threads are, unless that is where the process is. The last handle removes it.
    pub(super) cgroup: Option<Arc<VmCgroup>>,
    /// With whom its threads may share a core, unless that is with anybody.
    pub(super) core: Option<Arc<CoreGroup>>,
    pub(super) on_start: Option<OnStart>,
    /// What the threads of its vCPUs may ask of the kernel, if that is filtered.
    pub(super) vcpu_filter: Option<Arc<ThreadFilter>>,
    /// What is said of the VM.
    pub(super) logger: Logger,
}

impl ThreadSetup {
    pub(super) fn thread_name(&self, role: ThreadRole) -> String {
        thread_name(&self.name, &role.to_string())
    }

    /// Whether the start of a VM waits for what its threads do first: those things that the host may well refuse. A filter is not
    /// worth the two wake-ups that waiting takes.
    pub(super) fn is_awaited(&self) -> bool {
        self.on_start.is_some() || self.core.is_some() || self.cgroup.is_some() || !self.affinity.is_empty()
    }

    /// The first thing that a new thread does.
    ///
    /// # Errors
    /// [`ErrorKind::Host`] if the host does not let it run where it should and beside whom, or if the host program's callback fails
    /// or panics.
    pub(super) fn prepare(&self, role: ThreadRole) -> Result<()> {
        // First, so that what it starts is there as well, and what it does counts.
        self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.join(&self.thread_name(role)))?;
        let cpus = match role {
            ThreadRole::Vcpu(index) => self.affinity.vcpus.get(&index).map(Vec::as_slice).unwrap_or_default(),
            ThreadRole::Io | ThreadRole::DeviceIo(_) => &self.affinity.io,
        };
        if !cpus.is_empty() {
            CpuSet::new(cpus).and_then(|set| set.bind_this_thread()).map_err(|e| {
                // They were when the VM was built, unless the host has changed its mind since.
                let allowed = allowed_cpus().map_or_else(|_| "unknown".to_owned(), |cpus| cpu_list(&cpus));
                let message = format!(
                    "thread {} cannot be bound to the CPUs {}, allowed by the host are {allowed} now",
                    self.thread_name(role),
                    cpu_list(cpus)
                );
                Error::new(ErrorKind::Host, message).with_source(e)
            })?;
        }
        if let Some(core) = &self.core {
            core.join().map_err(|e| {
                let message =
                    format!("thread {} cannot be kept from sharing a core with others", self.thread_name(role));
                Error::new(ErrorKind::Host, message).with_source(e)
            })?;
        }
        self.call_on_start(role)?;
        match role {
            ThreadRole::Vcpu(_) => self.vcpu_filter.as_ref().map_or(Ok(()), |filter| filter.apply()),
            // It is filtered when all that it serves has been attached.
            ThreadRole::Io | ThreadRole::DeviceIo(_) => Ok(()),
        }
    }

    fn call_on_start(&self, role: ThreadRole) -> Result<()> {
        let Some(on_start) = &self.on_start else { return Ok(()) };
        let refused = |what| {
            let message = format!("thread {} was not started, because on_thread_start {what}", self.thread_name(role));
            Error::new(ErrorKind::Host, message)
        };
        let called = catch_unwind(AssertUnwindSafe(|| on_start(role)));
        // Whatever the callback did with them: no signal of the host program may land here.
        block_all_signals();
        match called {
            Ok(result) => result.map_err(|e| refused("failed").with_source(e)),
            Err(panic) => {
                // What a panic carries may panic as well when it is dropped.
                std::mem::forget(panic);
                Err(refused("panicked"))
            }
        }
    }
}

/// Who may share a core with a VM's threads, if that is asked for and matters on this host.
pub(super) fn core_group(is_wanted: bool, logger: &Logger) -> Result<Option<Arc<CoreGroup>>> {
    if is_wanted { core_group_on(CoreScheduling::of_this_host(), logger) } else { Ok(None) }
}

fn core_group_on(host: CoreScheduling, logger: &Logger) -> Result<Option<Arc<CoreGroup>>> {
    let refused = |why: &str| {
        let message = format!(
            "core scheduling was asked for, {why}; needed is Linux 5.14 with CONFIG_SCHED_CORE, or a host on which no two \
             hyperthreads share a core"
        );
        Error::new(ErrorKind::Host, message)
    };
    match host {
        CoreScheduling::There => Ok(Some(Arc::default())),
        CoreScheduling::NotNeeded(reason) => {
            logger.say(LogLevel::Info, "vm", || format!("needs no core scheduling, because {reason}"));
            Ok(None)
        }
        CoreScheduling::Missing => Err(refused("which the kernel lacks")),
        CoreScheduling::Unknown(error) => {
            Err(refused("and the kernel does not say whether it has it").with_source(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_core_scheduling_is_refused_unless_no_hyperthreads_share_a_core() {
        let of = |host| core_group_on(host, &Logger::default());
        assert!(of(CoreScheduling::There).unwrap().is_some());
        assert!(of(CoreScheduling::NotNeeded("there is one CPU")).unwrap().is_none());
        let error = of(CoreScheduling::Missing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Host);
        assert!(
            error
                .to_string()
                .starts_with("core scheduling was asked for, which the kernel lacks; needed is Linux 5.14")
        );
        let unknown = of(CoreScheduling::Unknown(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert!(
            unknown.chain().contains("does not say whether it has it")
                && unknown.chain().ends_with("permission denied")
        );
    }

    #[test]
    fn a_role_is_written_as_in_the_name_of_its_thread() {
        let roles = [ThreadRole::Vcpu(3), ThreadRole::Io, ThreadRole::DeviceIo(1)];
        assert_eq!(roles.map(|role| role.to_string()), ["vcpu3", "io", "io1"]);
        assert_eq!(format!("[{:<5}]", ThreadRole::Io), "[io   ]");
        assert_eq!(ThreadSetup { name: "web".into(), ..ThreadSetup::default() }.thread_name(roles[0]), "web:vcpu3");
    }

    #[test]
    fn a_thread_whose_cpus_are_gone_says_which_are_left() {
        let affinity = Arc::new(Affinity::new().vcpu(1, [8190, 8191]));
        let setup = ThreadSetup { name: "web".into(), affinity, ..ThreadSetup::default() };
        let error = setup.prepare(ThreadRole::Vcpu(1)).unwrap_err();
        let left = cpu_list(&allowed_cpus().unwrap());
        let expected =
            format!("thread web:vcpu1 cannot be bound to the CPUs 8190-8191, allowed by the host are {left} now");
        assert_eq!(error.to_string(), expected);
    }
}
