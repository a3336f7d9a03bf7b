//! A process that gives up what its VMs do not need, before it has threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::cgroup::JailCgroup;
use super::layer::{JailLayer, JailReport};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{
    Beneath, Forbids, InheritedDescriptors, Kept, Namespace, NoUserNamespace, Resource, drop_capabilities,
    enter_empty_root, forbid_looking_in, forbid_new_privileges, forbid_user_namespaces, hard_limit, is_single_threaded,
    landlock_version, leave_namespace, leave_user_namespace, limit_resource, locks_without_limit, open_path,
    restrict_this_thread, try_user_namespace,
};

/// Takes from the calling process, for good, what its VMs do not need: one call, before the process has threads, in layers each of
/// which is optional and reported. None of them needs privileges where the kernel allows it without.
///
/// It does for the process as a whole what [`VmBuilder::seccomp`](crate::VmBuilder::seccomp) does for the threads of a VM. The order is:
/// open what is needed, by [`VmBuilder::open`](crate::VmBuilder::open) for instance, enter the jail, build VMs. `docs/confinement.md`
/// says what each layer refuses.
///
/// ```no_run
/// use vmcell::{Boot, Console, Disk, Jail, Seccomp, Vm};
///
/// fn main() -> vmcell::Result<()> {
///     let builder = Vm::builder().boot(Boot::linux("vmlinuz")).disk(Disk::open("root.img")?).console(Console::stdio());
///     let opened = builder.seccomp(Seccomp::Refuse).open()?; // no thread yet
///     let report = Jail::new().enter()?;
///     if !report.is_complete() {
///         eprintln!("jailed {report}"); // without an empty root (Operation not permitted (os error 1))
///     }
///     let vm = opened.build()?; // opens nothing
///     vm.start()?;
///     vm.wait()?;
///     Ok(())
/// }
/// ```
#[derive(Debug, Default)]
#[must_use = "nothing happens before enter()"]
pub struct Jail {
    without: Vec<JailLayer>,
    kept: Vec<(PathBuf, Beneath)>,
    limits: Vec<(JailLimit, u64)>,
    cgroup: Option<JailCgroup>,
    inherited: Option<InheritedDescriptors>,
    /// Memory is to be locked beyond what the process may limit itself to, which takes a capability over the host.
    keeps_locking: bool,
}

/// A resource that a jail can limit (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JailLimit {
    /// One more than the highest descriptor that can be opened. A VM without devices needs about 20.
    OpenFiles,
    /// How many threads and processes the user may have, over all programs. In a user namespace of its own (Linux 5.14), the process's
    /// own threads count. The kernel does not hold root on the host to it.
    Processes,
    /// The size in bytes to which files may grow by this process, disks and logs among them. Writing beyond it fails. A thread of the host
    /// program gets `SIGXFSZ`, which ends the process unless that is caught or ignored; those of a VM block it.
    FileBytes,
    /// The size in bytes of a core dump.
    CoreBytes,
    /// How many bytes may be locked in memory, as those of a guest are by [`MemoryConfig::locked`](crate::MemoryConfig::locked).
    LockedBytes,
}

impl JailLimit {
    /// The other layers open descriptors themselves. More than is allowed now takes rights that are gone then.
    fn comes_last(self, most: u64) -> bool {
        self == Self::OpenFiles && hard_limit(self.resource()).is_none_or(|hard| most <= hard)
    }

    fn resource(self) -> Resource {
        match self {
            Self::OpenFiles => Resource::OpenFiles,
            Self::Processes => Resource::Processes,
            Self::FileBytes => Resource::FileBytes,
            Self::CoreBytes => Resource::CoreBytes,
            Self::LockedBytes => Resource::LockedBytes,
        }
    }
}

impl Jail {
    /// A jail with every layer that can be had without saying more about it. Nothing happens before [`enter`](Self::enter).
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves a layer out.
    pub fn without(mut self, layer: JailLayer) -> Self {
        self.without.push(layer);
        self
    }

    /// Keeps a file or a folder, with everything beneath it, where it is, to be read. Links on the way to it are followed, and what is
    /// kept is at the path that was given, which must be absolute and free of `..`. If it is `/`, the root is not an empty one.
    pub fn keep(mut self, path: impl AsRef<Path>) -> Self {
        self.kept.push((path.as_ref().to_owned(), Beneath::Read));
        self
    }

    /// Keeps a file, a device or a folder where it is, as [`keep`](Self::keep) does. It can be written, and in a folder files can be
    /// made, renamed and removed, as a [log of a limited size](crate::ConsoleFile::rotate) needs, and so can Unix sockets, as a
    /// [vsock with a path](crate::VsockConfig::unix_path) does that is built later.
    pub fn keep_writable(mut self, path: impl AsRef<Path>) -> Self {
        self.kept.push((path.as_ref().to_owned(), Beneath::Write));
        self
    }

    /// Lets the cgroup of a VM be removed when that ends: empty folders in this one may be removed, by descriptors that were opened before.
    /// The path itself is not kept. It must be absolute and free of `..`. [`OpenVm::cgroup_folder`](crate::OpenVm::cgroup_folder) says which.
    pub fn keep_cgroup(mut self, folder: impl AsRef<Path>) -> Self {
        self.kept.push((folder.as_ref().to_owned(), Beneath::RemoveFolders));
        self
    }

    /// Limits a resource, for good. If the process may not have that much, the layer is missing. If it is memory to be locked, and the
    /// process has the capability for that (`CAP_IPC_LOCK`), it keeps this one, and is missing a user namespace instead.
    pub fn limit(mut self, limit: JailLimit, most: u64) -> Self {
        self.limits.push((limit, most));
        self
    }

    /// Joins a cgroup, and sets its limits before. A VM that has a [cgroup of its own](crate::VmBuilder::cgroup) in this one is opened when the
    /// process is there already: [`JailCgroup::join`] comes first then.
    pub fn cgroup(mut self, cgroup: JailCgroup) -> Self {
        self.cgroup = Some(cgroup);
        self
    }

    /// Closes descriptors that the process got from the one that started it, by mistake perhaps.
    ///
    /// ```no_run
    /// use vmcell::{InheritedDescriptors, Jail};
    ///
    /// // SAFETY: this program uses none but 0, 1, 2 and 3.
    /// let jail = Jail::new().close(unsafe { InheritedDescriptors::except([3]) });
    /// ```
    pub fn close(mut self, inherited: InheritedDescriptors) -> Self {
        self.inherited = Some(inherited);
        self
    }

    /// Enters the jail. Takes less than a millisecond on most hosts; half of that is the network namespace's.
    ///
    /// A layer that the host does not give is missing in the report, and the others are there all the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidState`] if the process has another thread; [`ErrorKind::InvalidConfig`] if a path to be kept is not there, is
    /// not absolute or has `..` in it, or if the cgroup is none: nothing has changed then. [`ErrorKind::Host`] if the process is in a new user namespace
    /// in which its user has no number: it had better end.
    pub fn enter(mut self) -> Result<JailReport> {
        check_single()?;
        let kept = self.open_kept()?;
        self.cgroup.as_ref().map_or(Ok(()), JailCgroup::check)?;
        // While nothing limits how many processes there may be.
        let user_namespace = if self.wants(JailLayer::UserNamespace) { try_user_namespace() } else { Ok(()) };
        let mut report = JailReport::default();
        self.use_privileges(&mut report);
        let (last, first): (Vec<_>, Vec<_>) = self.limits.iter().partition(|(limit, most)| limit.comes_last(*most));
        let mut refused = Vec::new();
        self.keeps_locking = self.limit_resources(&first, &mut refused);
        self.leave_user_namespace(user_namespace, &mut report)?;
        self.leave_namespaces(&kept, &mut report);
        self.give_up_rights(&kept, &mut report);
        self.limit_resources(&last, &mut refused);
        if !self.limits.is_empty() && self.wants(JailLayer::Limits) {
            report.add(JailLayer::Limits, if refused.is_empty() { Ok(()) } else { Err(refused.join(", ")) });
        }
        Ok(report)
    }

    fn wants(&self, layer: JailLayer) -> bool {
        !self.without.contains(&layer)
    }

    /// Does what a layer needs, if it is wanted.
    fn layer(&self, report: &mut JailReport, layer: JailLayer, work: impl FnOnce() -> io::Result<()>) {
        if self.wants(layer) {
            report.add(layer, work().map_err(|e| e.to_string()));
        }
    }

    /// Opened before anything changes, so that none is missing later.
    fn open_kept(&self) -> Result<Vec<KeptPath>> {
        self.kept.iter().map(|(path, beneath)| KeptPath::open(path, *beneath)).collect()
    }

    /// What needs the host's files, or rights that are about to go.
    fn use_privileges(&self, report: &mut JailReport) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.enter(|layer| self.wants(layer), report);
        }
        if let Some(inherited) = &self.inherited {
            self.layer(report, JailLayer::Descriptors, || inherited.close());
        }
    }

    /// Says whether memory can be locked only by a privilege, and what was refused.
    fn limit_resources(&self, limits: &[&(JailLimit, u64)], refused: &mut Vec<String>) -> bool {
        let mut keeps_locking = false;
        for (limit, most) in limits.iter().filter(|_| self.wants(JailLayer::Limits)) {
            match limit_resource(limit.resource(), *most) {
                Err(_) if *limit == JailLimit::LockedBytes && locks_without_limit() => keeps_locking = true,
                Err(e) => {
                    let hard = hard_limit(limit.resource()).map_or(String::new(), |hard| format!("; it is {hard} now"));
                    refused.push(format!("{limit:?} cannot be {most}: {e}{hard}"));
                }
                Ok(()) => {}
            }
        }
        keeps_locking
    }

    /// Leaves it if it was `tried` that this works.
    fn leave_user_namespace(&self, tried: io::Result<()>, report: &mut JailReport) -> Result<()> {
        const LAYER: JailLayer = JailLayer::UserNamespace;
        if !self.wants(LAYER) {
            return Ok(());
        }
        if self.keeps_locking {
            report.add(LAYER, Err(KEEPS_LOCKING.to_owned()));
            return Ok(());
        }
        match tried.map_err(NoUserNamespace::Refused).and_then(|()| leave_user_namespace()) {
            Err(NoUserNamespace::Halfway(e)) => {
                let message = "the process is in a user namespace in which its user has no number";
                return Err(Error::new(ErrorKind::Host, message).with_source(e));
            }
            Err(NoUserNamespace::Refused(e)) => report.add(LAYER, Err(e.to_string())),
            Ok(()) => report.add(LAYER, Ok(())),
        }
        Ok(())
    }

    fn leave_namespaces(&self, kept: &[KeptPath], report: &mut JailReport) {
        let own = [
            (JailLayer::NetworkNamespace, Namespace::Network),
            (JailLayer::IpcNamespace, Namespace::Ipc),
            (JailLayer::UtsNamespace, Namespace::Uts),
            (JailLayer::CgroupNamespace, Namespace::Cgroup),
        ];
        for (layer, namespace) in own {
            self.layer(report, layer, || leave_namespace(namespace));
        }
        if report.has(JailLayer::UserNamespace) {
            self.layer(report, JailLayer::NestedNamespaces, forbid_user_namespaces);
        } else if self.wants(JailLayer::NestedNamespaces) {
            report.add(JailLayer::NestedNamespaces, Err("that takes a user namespace of its own".to_owned()));
        }
        self.layer(report, JailLayer::EmptyRoot, || {
            leave_namespace(Namespace::Mount)?;
            enter_empty_root(&kept.iter().filter_map(KeptPath::for_root).collect::<Vec<_>>())
        });
    }

    fn give_up_rights(&self, kept: &[KeptPath], report: &mut JailReport) {
        self.layer(report, JailLayer::NewPrivileges, forbid_new_privileges);
        self.restrict(kept, report);
        let keeps_locking = self.keeps_locking;
        self.layer(report, JailLayer::Capabilities, || {
            drop_capabilities(keeps_locking)?;
            if keeps_locking { Err(io::Error::other(KEEPS_LOCKING)) } else { Ok(()) }
        });
        self.layer(report, JailLayer::LookingIn, forbid_looking_in);
    }

    /// By Landlock, behind the new root, since no mount changes after it.
    fn restrict(&self, kept: &[KeptPath], report: &mut JailReport) {
        let [files, tcp, outside] =
            [JailLayer::Files, JailLayer::Tcp, JailLayer::Outside].map(|layer| (layer, self.wants(layer)));
        if ![files, tcp, outside].into_iter().any(|(_, is_wanted)| is_wanted) {
            return;
        }
        let version = landlock_version();
        let there = version.as_ref().map_or(Forbids::default(), |version| Forbids::of_version(*version));
        let forbids =
            Forbids { files: files.1 && there.files, tcp: tcp.1 && there.tcp, outside: outside.1 && there.outside };
        let kept: Vec<_> = kept.iter().map(|kept| (kept.opened.as_fd(), kept.beneath)).collect();
        let done = match &version {
            Err(e) => Err(format!("the kernel has no Landlock: {e}")),
            Ok(version) => restrict_this_thread(*version, forbids, &kept).map_err(|e| e.to_string()),
        };
        for ((layer, _), is_there) in [(files, there.files), (tcp, there.tcp), (outside, there.outside)]
            .into_iter()
            .filter(|((_, wanted), _)| *wanted)
        {
            let too_old =
                || version.as_ref().map_or(String::new(), |version| format!("the kernel has Landlock {version}"));
            let became = if is_there || done.is_err() { done.clone() } else { Err(too_old()) };
            report.add(layer, became);
        }
    }
}

/// Why a layer is missing.
const KEEPS_LOCKING: &str = "CAP_IPC_LOCK is needed to lock so much memory, since RLIMIT_MEMLOCK cannot be raised";

/// A path that is kept.
struct KeptPath {
    path: PathBuf,
    opened: OwnedFd,
    beneath: Beneath,
    is_folder: bool,
}

impl KeptPath {
    fn open(path: &Path, beneath: Beneath) -> Result<Self> {
        let refused = |why: &str| {
            let message = format!("{} is to be kept in a jail, and {why}", path.display());
            Error::new(ErrorKind::InvalidConfig, message)
        };
        if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(refused("must be absolute and without .."));
        }
        let missing = |e: io::Error| refused("cannot be found").with_source(e);
        let opened = open_path(path).map_err(missing)?;
        let is_folder = path.metadata().map_err(missing)?.is_dir();
        Ok(Self { path: path.to_owned(), opened, beneath, is_folder })
    }

    /// What of it the new root has.
    fn for_root(&self) -> Option<Kept<'_>> {
        let is_there = self.beneath != Beneath::RemoveFolders;
        is_there.then_some(Kept { path: &self.path, beneath: self.beneath, is_folder: self.is_folder })
    }
}

fn check_single() -> Result<()> {
    match is_single_threaded() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = "a process with more than one thread cannot be jailed: enter the jail before anything starts \
                           a thread, as an IoThread does, or building a VM";
            Err(Error::new(ErrorKind::InvalidState, message))
        }
        Err(e) => {
            let message = "the host does not say how many threads the process has, and a jail is for one";
            Err(Error::new(ErrorKind::Host, message).with_source(e))
        }
    }
}

#[cfg(test)]
#[path = "jail_test.rs"]
mod tests;
