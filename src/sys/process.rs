//! What a whole process gives up for good: descriptors, resources, rights, and being looked into.

use std::io;
use std::os::fd::RawFd;
use std::thread::sleep;
use std::time::Duration;

/// How long a thread that was joined may take until the kernel has forgotten it.
const LAST_STEPS: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Whether the calling thread is the only one of the process. Waits a moment for threads that are about to be gone: the kernel counts
/// them a little longer than whoever joins them.
///
/// # Errors
/// If neither the kernel nor `/proc` says so.
pub(crate) fn is_single_threaded() -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    while !is_alone()? {
        if waited >= LAST_STEPS {
            return Ok(false);
        }
        sleep(LOOK_AGAIN);
        waited = waited.saturating_add(LOOK_AGAIN);
    }
    Ok(true)
}

fn is_alone() -> io::Result<bool> {
    // There is nothing to unshare of a thread: the kernel only looks whether it is the only one (unshare(2)).
    // SAFETY: takes plain numbers alone.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EINVAL) {
        return Ok(false);
    }
    // A filter of system calls may refuse the question.
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}

/// From now on executing a program gives the calling thread no rights that it has not, nor what it starts.
pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// From now on no process without privileges looks into this one (ptrace, `/proc/PID/mem`), and it leaves no core dump.
pub(crate) fn forbid_looking_in() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// A resource that the kernel counts (getrlimit(2)).
#[derive(Clone, Copy)]
pub(crate) enum Resource {
    OpenFiles,
    Processes,
    FileBytes,
    CoreBytes,
    LockedBytes,
}

/// Limits a resource of the process for good: the soft limit and the hard one.
///
/// # Errors
/// `EPERM` if the hard limit was lower and the process may not raise it.
pub(crate) fn limit_resource(resource: Resource, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is valid for the call, which reads it.
    check(unsafe { libc::setrlimit(number_of(resource), &limit) })
}

/// The hard limit of a resource, beyond which the process needs a privilege to go; `None` if there is none, or the host does not tell.
pub(crate) fn hard_limit(resource: Resource) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is valid for the call. If it fails, the limit stays as it is.
    unsafe { libc::getrlimit(number_of(resource), &mut limit) };
    (limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max)
}

fn number_of(resource: Resource) -> libc::__rlimit_resource_t {
    match resource {
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::FileBytes => libc::RLIMIT_FSIZE,
        Resource::CoreBytes => libc::RLIMIT_CORE,
        Resource::LockedBytes => libc::RLIMIT_MEMLOCK,
    }
}

/// The descriptors that the process got from the one that started it, for [`Jail::close`](crate::Jail::close): those above 2 that are not
/// marked as close-on-exec. Whatever this crate and the standard library have opened is marked, and is none of them.
#[derive(Debug)]
pub struct InheritedDescriptors {
    keep: Vec<RawFd>,
}

impl InheritedDescriptors {
    /// All of them but these.
    ///
    /// # Safety
    /// They are going to be closed, whoever has them: no code of the process uses one of them, or takes it for open.
    pub unsafe fn except(keep: impl IntoIterator<Item = RawFd>) -> Self {
        Self { keep: keep.into_iter().collect() }
    }

    /// Has all of them closed as soon as the process executes another program, and none before. Never blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Host`](crate::ErrorKind::Host) if the host does not list the process's descriptors in `/proc`.
    pub fn close_on_exec() -> crate::Result<()> {
        let failed = |e: io::Error| {
            crate::Error::new(crate::ErrorKind::Host, "cannot list the descriptors of the process").with_source(e)
        };
        for fd in inherited().map_err(failed)? {
            // SAFETY: takes a number of a descriptor, which stays open.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Ok(())
    }

    /// # Errors
    /// If the host does not list the process's descriptors in `/proc`.
    pub(crate) fn close(&self) -> io::Result<()> {
        for fd in inherited()?.into_iter().filter(|fd| !self.keep.contains(fd)) {
            // SAFETY: the caller of `except` has vouched that nothing uses it.
            unsafe { libc::close(fd) };
        }
        Ok(())
    }
}

/// The descriptors above 2 that are not marked as close-on-exec.
fn inherited() -> io::Result<Vec<RawFd>> {
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        inherited.extend(number.filter(|fd| *fd > libc::STDERR_FILENO));
    }
    // SAFETY: takes a number; if it is no descriptor, such as the one by which they were listed, the call fails.
    let flags = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) };
    inherited.retain(|fd| flags(fd) >= 0 && flags(fd) & libc::FD_CLOEXEC == 0);
    Ok(inherited)
}

/// Whether the process may lock memory beyond its limit (`CAP_IPC_LOCK`).
pub(crate) fn locks_without_limit() -> bool {
    has_capabilities(IPC_LOCK)
}

/// Whether the process may administer its namespaces, and give programs capabilities over what belongs to them.
pub(crate) fn rules_its_namespaces() -> bool {
    has_capabilities(SYS_ADMIN | SETFCAP)
}

fn has_capabilities(all: u32) -> bool {
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [Capabilities { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both pointers are valid for the call, which reads a header and writes two sets for this version.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, sets.as_mut_ptr()) };
    result == 0 && sets[0].effective & all == all
}

/// Gives all capabilities up (capabilities(7)): those that it has, and those that programs could give it. It may still lock memory beyond
/// its limit if `keeps_locking`.
pub(crate) fn drop_capabilities(keeps_locking: bool) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let mut programs_give = false;
    for capability in 0..MOST_CAPABILITIES {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // The kernel has no more of them.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            // Without CAP_SETPCAP the bounding set stays, and no program gives anything from it after `forbid_new_privileges`.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                programs_give = !may_gain_nothing();
                break;
            }
            other => other?,
        }
    }
    let header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let left = if keeps_locking { IPC_LOCK } else { 0 };
    let none = Capabilities { effective: 0, permitted: 0, inheritable: 0 };
    let left = [Capabilities { effective: left, permitted: left, inheritable: 0 }, none];
    // SAFETY: both pointers are valid for the call, which reads a header and two sets for this version.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, left.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if programs_give {
        Err(io::Error::other("programs may give some, without a ban on new privileges"))
    } else {
        Ok(())
    }
}

/// Whether [`forbid_new_privileges`] was called.
fn may_gain_nothing() -> bool {
    let none: libc::c_ulong = 0;
    // SAFETY: takes plain numbers alone.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, none, none, none, none) == 1 }
}

const MOST_CAPABILITIES: libc::c_ulong = 64;

// `include/uapi/linux/capability.h`.
const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const IPC_LOCK: u32 = 1 << 14;
const SYS_ADMIN: u32 = 1 << 21;
const SETFCAP: u32 = 1 << 31;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: takes plain numbers alone.
    check(unsafe { libc::prctl(option, value, none, none, none) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
