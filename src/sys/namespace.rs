//! Namespaces of a process of its own (namespaces(7)), and a root in which there is nothing but what was kept.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::landlock::Beneath;
use super::process::rules_its_namespaces;

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

/// Has a short-lived child find out whether [`leave_user_namespace`] works, unless the process has privileges that make it. There is no way
/// back for the process itself, and hosts give a namespace and then refuse a number in it: AppArmor to programs without a profile, and the
/// kernel to root without `CAP_SETFCAP`. The process must have a single thread.
pub(crate) fn try_user_namespace() -> io::Result<()> {
    // Without it, there is no way to say who the user is. It is not there without `/proc`, and not the process's own if that has changed
    // its user since it was executed.
    std::fs::File::options().write(true).open(UID_MAP)?;
    if rules_its_namespaces() {
        return Ok(());
    }
    let who = Who::now();
    let none = 0_usize;
    // No signal tells of the child's end, so that nobody else learns of it.
    // SAFETY: takes plain numbers alone. The child has its own copy of the only thread, so that no lock is held by another one.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, none, none, none, none) };
    if child == 0 {
        let refused = who.map().err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(refused) };
    }
    let Ok(child @ 0..) = libc::pid_t::try_from(child) else { return Err(io::Error::last_os_error()) };
    match end_of(child)? {
        0 => Ok(()),
        refused => Err(io::Error::from_raw_os_error(refused)),
    }
}

/// Waits for a child, and says its code.
fn end_of(child: libc::pid_t) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is valid for the call.
        match check(unsafe { libc::waitpid(child, &mut status, libc::__WALL) }.into()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(()) if libc::WIFEXITED(status) => return Ok(libc::WEXITSTATUS(status)),
            Ok(()) => return Ok(libc::ECHILD),
        }
    }
}

/// Gives the process, which has a single thread, a user namespace of its own, in which its user and its group keep their numbers, no
/// other has one, and it has all capabilities over what belongs to the namespace. Those that it had before are gone.
pub(crate) fn leave_user_namespace() -> Result<(), NoUserNamespace> {
    let who = Who::now();
    unshare(libc::CLONE_NEWUSER).map_err(NoUserNamespace::Refused)?;
    who.map().map_err(NoUserNamespace::Halfway)
}

/// A user and a group.
struct Who(libc::uid_t, libc::gid_t);

impl Who {
    fn now() -> Self {
        // SAFETY: takes nothing and cannot fail.
        unsafe { Self(libc::geteuid(), libc::getegid()) }
    }

    /// Gives them their numbers in the present user namespace.
    fn map(&self) -> io::Result<()> {
        let Self(user, group) = self;
        // A group may be mapped without privileges if none can be given up (user_namespaces(7)).
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write(UID_MAP, format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
    }
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

impl Kept<'_> {
    /// Its path below the root.
    fn below(&self) -> PathBuf {
        self.path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
    }
}

/// Replaces the root by one in memory which is read-only, and has nothing but what is kept. The process must have a mount namespace of
/// its own, and all capabilities over it. If it fails, all paths lead where they did.
pub(crate) fn enter_empty_root(kept: &[Kept<'_>]) -> io::Result<()> {
    if kept.iter().any(|keeps| keeps.below().as_os_str().is_empty()) {
        return Err(io::Error::other("the whole root is kept"));
    }
    // What is done here does not reach other namespaces.
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    let mut trees = Vec::new();
    for keeps in kept {
        trees.push((keeps, tree(keeps)?));
    }
    // What lies in another path goes on top of it, and of two with the same path the one that can be written.
    trees.sort_by_key(|(keeps, _)| (keeps.path.components().count(), keeps.beneath == Beneath::Write));
    let at = PLACES.into_iter().find(|place| Path::new(OsStr::from_bytes(place.to_bytes())).is_dir());
    let (at, before) = (at.ok_or(io::ErrorKind::NotFound)?, open_path(Path::new("."))?);
    mount(Some(c"vmcell"), at, Some(c"tmpfs"), RESTRICTED, Some(c"mode=755,size=64k"))?;
    fill_and_enter(at, &trees).inspect_err(|_| {
        // SAFETY: the path is a text with a NUL behind it, and the descriptor is open.
        unsafe {
            libc::umount2(at.as_ptr(), libc::MNT_DETACH);
            libc::fchdir(before.as_raw_fd());
        }
    })?;
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into())?;
    mount(None, c"/", None, RESTRICTED | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, None)
}

/// Puts the trees into the new root, and the new root on top of the old one, which is then to be taken away below it (pivot_root(2)).
fn fill_and_enter(at: &CStr, trees: &[(&Kept<'_>, OwnedFd)]) -> io::Result<()> {
    // SAFETY: the path is a text with a NUL behind it.
    check(unsafe { libc::chdir(at.as_ptr()) }.into())?;
    trees.iter().try_for_each(|(keeps, tree)| put(keeps, tree))?;
    // SAFETY: both paths are texts with a NUL behind them.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })
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
    let below = kept.below();
    // It would be put where the link leads, which is not in the new root.
    if below.ancestors().any(Path::is_symlink) {
        let path = kept.path.display();
        return Err(io::Error::other(format!(
            "there is a link on the way to {path}, in a folder that is kept as well"
        )));
    }
    if kept.is_folder {
        std::fs::create_dir_all(&below)?;
    } else {
        below.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        // In a folder that is kept as well, it is the file itself.
        match std::fs::File::create_new(&below) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => drop(other?),
        }
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
