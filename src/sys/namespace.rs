//! Namespaces of a process of its own (namespaces(7)), and a root in which there is nothing but what was kept.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::landlock::Beneath;

/// What a process may have of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Cgroup,
    Ipc,
    Mount,
    Network,
    Uts,
}

/// Gives the calling thread a namespace of its own.
pub(crate) fn leave_namespace(namespace: Namespace) -> io::Result<()> {
    unshare(match namespace {
        Namespace::Cgroup => libc::CLONE_NEWCGROUP,
        Namespace::Ipc => libc::CLONE_NEWIPC,
        Namespace::Mount => libc::CLONE_NEWNS,
        Namespace::Network => libc::CLONE_NEWNET,
        Namespace::Uts => libc::CLONE_NEWUTS,
    })
}

/// Why a process has no user namespace of its own.
pub(crate) enum NoUserNamespace {
    /// It is in the one where it was.
    Refused(io::Error),
    /// It is in one in which its user has no number.
    Halfway(io::Error),
}

/// Gives the process, which has a single thread, a user namespace of its own, in which its user and its group keep their numbers, no
/// other has one, and it has all capabilities over what belongs to the namespace. Those that it had before are gone.
pub(crate) fn leave_user_namespace() -> Result<(), NoUserNamespace> {
    // Without it, there is no way to say who the user is. It is not there without `/proc`, and not the process's own if that has changed
    // its user since it was executed.
    std::fs::File::options().write(true).open(UID_MAP).map_err(NoUserNamespace::Refused)?;
    // SAFETY: takes nothing and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    unshare(libc::CLONE_NEWUSER).map_err(NoUserNamespace::Refused)?;
    let map = || {
        // A group may be mapped without privileges if none can be given up (user_namespaces(7)).
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write(UID_MAP, format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
    };
    map().map_err(NoUserNamespace::Halfway)
}

const UID_MAP: &str = "/proc/self/uid_map";

/// From now on nobody makes further user namespaces in the present one. It must be the caller's own.
pub(crate) fn forbid_user_namespaces() -> io::Result<()> {
    std::fs::write("/proc/sys/user/max_user_namespaces", "0")
}

/// A path for itself, not for what it leads to: it is neither read nor written.
pub(crate) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a text with a NUL behind it.
    owned(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) }.into())
}

/// What the new root has at a path.
pub(crate) struct Kept<'a> {
    pub(crate) path: &'a Path,
    pub(crate) beneath: Beneath,
    pub(crate) is_folder: bool,
}

/// Replaces the root by one in memory which is read-only, and has nothing but what is kept. The process must have a mount namespace of
/// its own, and all capabilities over it.
pub(crate) fn enter_empty_root(kept: &[Kept<'_>]) -> io::Result<()> {
    // What is done here does not reach other namespaces.
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    let mut trees = Vec::new();
    for keeps in kept {
        trees.push(tree(keeps)?);
    }
    let at = PLACES.into_iter().find(|place| Path::new(OsStr::from_bytes(place.to_bytes())).is_dir());
    let at = at.ok_or(io::ErrorKind::NotFound)?;
    mount(Some(c"vmcell"), at, Some(c"tmpfs"), RESTRICTED, Some(c"mode=755,size=64k"))?;
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::chdir(at.as_ptr()) }.into())?;
    for (keeps, tree) in kept.iter().zip(&trees) {
        put(keeps, tree)?;
    }
    // The new root on top of the old one, which is then taken away below it (pivot_root(2)).
    // SAFETY: both paths are texts with a NUL behind them.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into())?;
    mount(None, c"/", None, RESTRICTED | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, None)
}

/// Where the new root is put until it is the root. What lies there is not needed any more.
const PLACES: [&CStr; 4] = [c"/proc", c"/tmp", c"/dev", c"/sys"];
const RESTRICTED: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// A copy of what is mounted at a kept path and below it, to be mounted elsewhere (Linux 5.12).
fn tree(kept: &Kept<'_>) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | RECURSIVE;
    let path = CString::new(kept.path.as_os_str().as_bytes())?;
    // By its path: what was opened before belongs to the mount namespace that was left.
    // SAFETY: the path is a text with a NUL behind it.
    let tree = owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let read_only = if kept.beneath == Beneath::Read { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes =
        MountAttributes { set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | read_only, clear: 0, propagation: 0, userns: 0 };
    let (fd, size) = (tree.as_raw_fd(), size_of::<MountAttributes>());
    // SAFETY: the descriptor is open, the path is an empty text, and the kernel reads as many bytes as it is told that there are.
    check(unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), EMPTY_PATH | RECURSIVE, &attributes, size)
    })?;
    Ok(tree)
}

/// Puts a tree at its path below the present folder, with the folders that lead there.
fn put(kept: &Kept<'_>, tree: &OwnedFd) -> io::Result<()> {
    let below: std::path::PathBuf =
        kept.path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if kept.is_folder {
        std::fs::create_dir_all(&below)?;
    } else {
        below.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::File::create(&below)?;
    }
    let at = CString::new(below.as_os_str().as_bytes())?;
    let (from, here) = (tree.as_raw_fd(), libc::AT_FDCWD);
    // SAFETY: the descriptor is open, and the paths are texts with a NUL behind them.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), here, at.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    })
}

// `include/uapi/linux/mount.h` and `fcntl.h`.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const EMPTY_PATH: libc::c_uint = 0x1000;
const RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NOEXEC: u64 = 8;

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> io::Result<()> {
    let text = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each is NULL or a text with a NUL behind it, all of which live until the call ends.
    check(unsafe { libc::mount(text(source), target.as_ptr(), text(kind), flags, text(data).cast()) }.into())
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes plain numbers alone; what the standard library keeps of the process does not depend on namespaces.
    check(unsafe { libc::unshare(flags) }.into())
}

fn owned(made: libc::c_long) -> io::Result<OwnedFd> {
    let Ok(made @ 0..) = libc::c_int::try_from(made) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel just made the descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
