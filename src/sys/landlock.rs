//! Landlock: a process forbids itself what it will not need, without any privileges (`Documentation/userspace-api/landlock.rst`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What stays allowed beneath a path that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beneath {
    Read,
    /// And files may be made, changed, renamed and removed.
    Write,
    /// Empty folders may be removed, by the descriptor of a folder that was opened before. Nothing else is kept.
    RemoveFolders,
}

/// What a kernel can forbid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forbids {
    /// What is done with files by their paths.
    pub(crate) files: bool,
    /// TCP connections, and ports to be connected to (Linux 6.7).
    pub(crate) tcp: bool,
    /// Signals to processes outside, and their abstract sockets (Linux 6.12).
    pub(crate) outside: bool,
}

/// The version of Landlock that the kernel has.
///
/// # Errors
/// `ENOSYS` if it has none (`CONFIG_SECURITY_LANDLOCK`), `EOPNOTSUPP` if it was booted without.
pub(crate) fn landlock_version() -> io::Result<i64> {
    // SAFETY: takes no pointer, and says a number.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, CREATE_RULESET_VERSION) };
    if version < 0 { Err(io::Error::last_os_error()) } else { Ok(version) }
}

impl Forbids {
    /// What this version can forbid.
    pub(crate) fn of_version(version: i64) -> Self {
        Self { files: version >= 1, tcp: version >= TCP, outside: version >= OUTSIDE }
    }
}

/// From now on the calling thread, and what it starts, may do no more of this than what is kept. `PR_SET_NO_NEW_PRIVS` is needed.
/// Descriptors that are open stay usable.
pub(crate) fn restrict_this_thread(
    version: i64,
    forbids: Forbids,
    kept: &[(BorrowedFd<'_>, Beneath)],
) -> io::Result<()> {
    let attributes = RulesetAttributes {
        handled_access_fs: if forbids.files { all_of_files(version) } else { 0 },
        handled_access_net: if forbids.tcp { BIND_TCP | CONNECT_TCP } else { 0 },
        scoped: if forbids.outside { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 },
    };
    // An older kernel refuses what it has no fields for, unless they are zero, and so they are.
    let size = size_of::<RulesetAttributes>();
    // SAFETY: the kernel reads as many bytes as it is told that there are.
    let made = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &attributes, size, 0) };
    let Ok(made @ 0..) = libc::c_int::try_from(made) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel just made the descriptor, which nobody else has.
    let rules = unsafe { OwnedFd::from_raw_fd(made) };
    if forbids.files {
        kept.iter().try_for_each(|(path, beneath)| keep(&rules, *path, rights(*beneath, version)))?;
    }
    // SAFETY: takes plain numbers alone.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })
}

fn keep(rules: &OwnedFd, path: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
    let add = |allowed_access| {
        let rule = PathBeneath { allowed_access, parent_fd: path.as_raw_fd() };
        // SAFETY: the pointer is valid for the call, which reads a rule of this type.
        check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_PATH_BENEATH, &rule, 0) })
    };
    match add(rights) {
        // It is no folder, and has nothing beneath it.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => add(rights & OF_A_FILE),
        other => other,
    }
}

fn rights(beneath: Beneath, version: i64) -> u64 {
    let wanted = match beneath {
        Beneath::Read => READ_FILE | READ_DIR,
        Beneath::Write => READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | MAKE_SOCK | TRUNCATE | IOCTL_DEV,
        Beneath::RemoveFolders => REMOVE_DIR,
    };
    wanted & all_of_files(version)
}

fn all_of_files(version: i64) -> u64 {
    // They are numbered in the order in which they came.
    match version {
        ..=1 => 0x1fff,
        2 => 0x3fff,
        3 | 4 => 0x7fff,
        5.. => 0xffff,
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// `include/uapi/linux/landlock.h`.
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const TCP: i64 = 4;
const OUTSIDE: i64 = 6;

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Those that there are for what is no folder.
const OF_A_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;

#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}
