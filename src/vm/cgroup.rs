//! The cgroup of a VM's threads (`Documentation/admin-guide/cgroup-v2.rst`, "Threads"): made before the threads, removed behind them.

use std::fs::File;
use std::io::{self, ErrorKind as Io, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::{CgroupConfig, CpuShare};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::{LogLevel, Logger};
use crate::sys::Folder;

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC` of `linux/magic.h`.
const VERSION_2: u64 = 0x6367_7270;
const VERSION_1: u64 = 0x0027_e0eb;

/// For how long the threads of a VM that has ended may still be seen in it, in steps of a millisecond.
const PATIENCE: u32 = 200;

pub(super) struct VmCgroup {
    /// Where it is, for messages.
    path: String,
    parent: Folder,
    name: String,
    /// By which threads are moved into it, and back.
    threads: File,
    threads_of_parent: File,
    /// If there is a limit.
    cpu_max: Option<File>,
    is_lifted: AtomicBool,
    logger: Logger,
}

impl VmCgroup {
    /// Makes it, with its limits. Opens all that is needed later.
    pub(super) fn make(config: &CgroupConfig, vm: &str, logger: &Logger) -> Result<Self> {
        let folder = &config.folder;
        let parent = open_parent(folder)?;
        check_is_ours(&parent, folder)?;
        let (name, path) = (config.name_for(vm), folder.join(config.name_for(vm)));
        let made = parent.make(name).map_err(|e| {
            let why = match e.kind() {
                Io::AlreadyExists => {
                    ": it is there already; another VM has it, or one that ended with its process left it"
                }
                _ => "",
            };
            Error::new(ErrorKind::Host, format!("cannot make the cgroup {}{why}", path.display())).with_source(e)
        })?;
        let filled = fill(config, &parent, &made, &path);
        let (threads, threads_of_parent, cpu_max) = filled.inspect_err(|_| _ = parent.remove(name))?;
        Ok(Self {
            path: path.display().to_string(),
            parent,
            name: name.to_owned(),
            threads,
            threads_of_parent,
            cpu_max,
            is_lifted: AtomicBool::new(false),
            logger: logger.clone(),
        })
    }

    /// Moves the calling thread into it. `thread` is its name, for messages.
    pub(super) fn join(&self, thread: &str) -> Result<()> {
        (&self.threads).write_all(b"0").map_err(|e| {
            let remedy = if e.raw_os_error() == Some(libc::EOPNOTSUPP) { LEFT } else { "" };
            let message = format!("thread {thread} cannot be moved to the cgroup {}{remedy}", self.path);
            Error::new(ErrorKind::Host, message).with_source(e)
        })
    }

    /// Lets its threads run as long as they want: they are to end, which those that have used up their share do only in the next
    /// period. Never blocks.
    pub(super) fn lift(&self) {
        let Some(mut cpu_max) = self.cpu_max.as_ref().filter(|_| !self.is_lifted.swap(true, Ordering::Relaxed)) else {
            return;
        };
        if let Err(e) = cpu_max.write_all(b"max") {
            self.warn(|path| format!("the limit of the cgroup {path} stays while the VM ends: {e}"));
        }
    }

    fn remove(&self) -> io::Result<()> {
        for step in 0..PATIENCE {
            match self.parent.remove(&self.name) {
                // A thread that was joined is seen for a moment longer. One that the kernel does not let go of goes back.
                Err(e) if e.kind() == Io::ResourceBusy => {
                    if step == PATIENCE / 2 {
                        self.move_back()?;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => return other,
            }
        }
        Err(Io::ResourceBusy.into())
    }

    fn move_back(&self) -> io::Result<()> {
        let mut left = String::new();
        let mut threads = &self.threads;
        threads.seek(SeekFrom::Start(0))?;
        threads.read_to_string(&mut left)?;
        // One that has ended meanwhile is not there to be moved.
        left.lines().for_each(|thread| _ = (&self.threads_of_parent).write_all(thread.as_bytes()));
        Ok(())
    }

    fn warn(&self, what: impl FnOnce(&str) -> String) {
        self.logger.say(LogLevel::Warn, "vm", || what(&self.path));
    }
}

impl Drop for VmCgroup {
    fn drop(&mut self) {
        match self.remove() {
            Err(e) if e.kind() != Io::NotFound => {
                self.warn(|path| format!("the cgroup {path} was not removed: {e}"));
            }
            _ => {}
        }
    }
}

/// Why a thread cannot be moved that could when the VM was opened.
const LEFT: &str =
    ", because the process has left the cgroup above it since the VM was opened: it must join its cgroup before";

fn open_parent(path: &Path) -> Result<Folder> {
    let failed =
        |e| Error::new(ErrorKind::InvalidConfig, format!("cannot open the cgroup {}", path.display())).with_source(e);
    let folder = Folder::open(path).map_err(failed)?;
    let found = match folder.file_system().map_err(failed)? {
        VERSION_2 => return Ok(folder),
        VERSION_1 => "is in a hierarchy of cgroups of version 1",
        _ => "is not the folder of a cgroup",
    };
    let message = format!("{} {found}, needed is that of a cgroup of version 2", path.display());
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// Linux moves threads only within the cgroup of their process.
fn check_is_ours(folder: &Folder, path: &Path) -> Result<()> {
    let processes = match read(folder, "cgroup.procs") {
        // It is a threaded one itself, and threads tell.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        other => other.map_err(|e| cannot(path, "read", "cgroup.procs", e))?,
    };
    let own = std::process::id().to_string();
    if processes.lines().any(|process| process == own) {
        return Ok(());
    }
    let message = format!(
        "the process is not in the cgroup {0}, in which its VM is to have one: a thread can be moved only within the cgroup of its \
         process; write 0 to {0}/cgroup.procs first, as JailCgroup::join does, or name the cgroup that the process is in",
        path.display()
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

type Files = (File, File, Option<File>);

fn fill(config: &CgroupConfig, parent: &Folder, made: &Folder, path: &Path) -> Result<Files> {
    let set = |file: &str, value: &str| {
        let written = made.file(file, true).and_then(|mut file| file.write_all(value.as_bytes()).map(|()| file));
        written.map_err(|e| cannot(path, &format!("write {value} to"), file, e))
    };
    set("cgroup.type", "threaded")?;
    if config.cpu.is_some() || config.weight.is_some() {
        enable_cpu(parent, &config.folder)?;
    }
    let cpu_max = match config.cpu {
        None => None,
        Some(CpuShare { quota_us, period_us, burst_us }) => {
            let cpu_max = set("cpu.max", &format!("{quota_us} {period_us}"))?;
            if burst_us > 0 {
                set("cpu.max.burst", &burst_us.to_string())?;
            }
            Some(cpu_max)
        }
    };
    if let Some(weight) = config.weight {
        set("cpu.weight", &weight.to_string())?;
    }
    let open = |folder: &Folder, path| {
        folder.file("cgroup.threads", true).map_err(|e| cannot(path, "open", "cgroup.threads", e))
    };
    Ok((open(made, path)?, open(parent, &config.folder)?, cpu_max))
}

/// Gives the cgroups in a folder the controller for CPU time.
fn enable_cpu(parent: &Folder, path: &Path) -> Result<()> {
    let list = |file| read(parent, file).map_err(|e| cannot(path, "read", file, e));
    let has = |list: &str| list.split_whitespace().any(|controller| controller == "cpu");
    // The root has no such file for itself, and all of them.
    let there = list("cgroup.controllers")?;
    if !has(&there) {
        let message = format!(
            "the cgroup {} has the controllers {:?}, needed is cpu: the cgroup above it must have it in cgroup.subtree_control, and \
             no hierarchy of version 1 may use it",
            path.display(),
            there.trim()
        );
        return Err(Error::new(ErrorKind::Host, message));
    }
    const FILE: &str = "cgroup.subtree_control";
    if has(&list(FILE)?) {
        return Ok(());
    }
    let written = parent.file(FILE, true).and_then(|mut file| file.write_all(b"+cpu"));
    written.map_err(|e| cannot(path, "write +cpu to", FILE, e))
}

fn read(folder: &Folder, file: &str) -> io::Result<String> {
    folder.file(file, false).and_then(io::read_to_string)
}

fn cannot(folder: &Path, what: &str, file: &str, e: io::Error) -> Error {
    let remedy = match (file, e.kind()) {
        ("cpu.max.burst", Io::NotFound) => "; a burst takes Linux 5.14",
        (_, Io::PermissionDenied) => "; the program must own the cgroup and its files",
        _ => "",
    };
    Error::new(ErrorKind::Host, format!("cannot {what} {}{remedy}", folder.join(file).display())).with_source(e)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod tests;
