use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, mount_move, unmount};
use vmcell_platform::guest::Volume;

use crate::disks;

/// Where the image is put together.
const ROOT: &str = "/root";

/// The root that the command sees.
pub struct Root {
    folder: OwnedFd,
    volumes: Vec<String>,
}

/// Mounts what the kernel offers, and inserts the modules of the initrd but for the last one, which it gives: the vsock's driver, after
/// which the host's connections arrive.
pub fn kernel() -> Result<Option<PathBuf>, String> {
    mount_at("proc", "/proc", "proc", MountFlags::empty(), c"")?;
    mount_at("sysfs", "/sys", "sysfs", MountFlags::empty(), c"")?;
    mount_at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"")?;
    for folder in ["/dev/pts", "/dev/shm"] {
        fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
    }
    mount_at("devpts", "/dev/pts", "devpts", MountFlags::NOSUID, c"mode=620,ptmxmode=666,gid=5")?;
    mount_at("tmpfs", "/dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")?;
    // A kernel may lack it, and few commands need it.
    let _ = mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), c"");
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        // devtmpfs of some kernels has them.
        let _ = std::os::unix::fs::symlink(target, format!("/dev/{link}"));
    }
    let mut files: Vec<PathBuf> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let last = files.pop();
    files.iter().for_each(|path| insert(path));
    Ok(last)
}

/// Inserts a module.
pub fn insert(path: &Path) {
    let there = |error: Errno| if error == Errno::EXIST { Ok(()) } else { Err(error.to_string()) };
    let inserted = File::open(path).map_err(|error| error.to_string());
    let inserted = inserted.and_then(|file| rustix::system::finit_module(&file, c"", 0).or_else(there));
    if let Err(error) = inserted {
        // What it would have served says what is missing.
        eprintln!("cell-init: {}: {error}", path.display());
    }
}

impl Root {
    /// Mounts the image of this disk, with a file system in memory over it for what is written.
    pub fn mount(serial: &str) -> Result<Self, String> {
        let disk = disks::find(serial)?;
        mount_at(&disk.path, "/image", "erofs", MountFlags::RDONLY, c"")?;
        mount_at("tmpfs", "/run", "tmpfs", MountFlags::empty(), c"mode=755")?;
        for folder in ["/run/upper", "/run/work"] {
            fs::create_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
        }
        mount_at(
            "overlay",
            ROOT,
            "overlay",
            MountFlags::empty(),
            c"lowerdir=/image,upperdir=/run/upper,workdir=/run/work",
        )?;
        let folder = open(ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("{ROOT}: {error}"))?;
        let root = Self { folder, volumes: Vec::new() };
        for name in ["dev", "proc", "sys"] {
            let below = root.folder(name)?;
            mount_bind_recursive(format!("/{name}"), below.path())
                .map_err(|error| format!("cannot mount {name}: {error}"))?;
        }
        if root.open("tmp").is_err() {
            let below = root.folder("tmp")?;
            rustix::fs::chmod(below.path(), Mode::from_raw_mode(0o1777)).map_err(|error| format!("/tmp: {error}"))?;
        }
        Ok(root)
    }

    /// Mounts a volume in it.
    pub fn volume(&mut self, volume: &Volume) -> Result<(), String> {
        let Volume { serial, path, read_only, is_new } = volume;
        let named = |error: String| format!("the volume `{serial}` at {path}: {error}");
        if !path.starts_with('/') {
            return Err(named("the path is not absolute".to_owned()));
        }
        let disk = disks::find(serial).map_err(named)?;
        let made = !read_only && disk.prepare(*is_new).map_err(named)?;
        let below = self.folder(path).map_err(named)?;
        let flags = MountFlags::NOATIME | if *read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_at(&disk.path, &below.path(), "ext4", flags, c"").map_err(named)?;
        self.volumes.push(path.clone());
        if made {
            // Databases want an empty folder; a repair makes it again.
            let _ = self.open(path).map(|folder| unlinkat(&folder.0, "lost+found", AtFlags::REMOVEDIR));
        }
        if *read_only { Ok(()) } else { disk.grow().map_err(named) }
    }

    /// Puts it in the place of the initrd's root for all but this program, whose working directory it is from now on.
    pub fn enter(&self) -> Result<(), String> {
        let entered = rustix::process::chdir(ROOT).and_then(|()| mount_move(ROOT, "/"));
        entered.map_err(|error| format!("cannot enter the root: {error}"))
    }

    /// Writes a small file, in the place of whatever is there.
    pub fn write(&self, folder: &str, name: &str, text: &str) -> Result<(), String> {
        let named = |error: Errno| format!("/{folder}/{name}: {error}");
        let folder = self.folder(folder)?;
        match unlinkat(&folder.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(named(error)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&folder.0, name, flags, Mode::from_raw_mode(0o644)).map_err(named)?;
        std::io::Write::write_all(&mut File::from(file), text.as_bytes()).map_err(|error| format!("{name}: {error}"))
    }

    /// Takes the volumes off, so that their file systems are whole. A program that still has a file open keeps one.
    pub fn leave(&self) {
        for path in self.volumes.iter().rev() {
            let Ok(folder) = self.open(path) else { continue };
            let _ = unmount(folder.path(), UnmountFlags::DETACH);
        }
        rustix::fs::sync();
    }

    /// Opens a folder below the root; links lead nowhere else.
    fn open(&self, path: &str) -> Result<Folder, Errno> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.folder, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
            .map(Folder)
    }

    /// The same, and makes it if it is not there.
    fn folder(&self, path: &str) -> Result<Folder, String> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut parent = self.open("").map_err(|error| error.to_string())?;
        for (begin, end) in std::iter::once(0).chain(ends.clone().map(|end| end.saturating_add(1))).zip(ends) {
            let below = path.get(..end).unwrap_or_default();
            parent = match self.open(below) {
                Err(Errno::NOENT) => {
                    let name = path.get(begin..end).unwrap_or_default();
                    mkdirat(&parent.0, name, Mode::from_raw_mode(0o755))
                        .map_err(|error| format!("/{below}: {error}"))?;
                    self.open(below).map_err(|error| format!("/{below}: {error}"))?
                }
                opened => opened.map_err(|error| format!("/{below}: {error}"))?,
            };
        }
        Ok(parent)
    }
}

/// An open folder.
struct Folder(OwnedFd);

impl Folder {
    /// A path that leads to it and nowhere else.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

fn mount_at(source: &str, target: &str, kind: &str, flags: MountFlags, data: &CStr) -> Result<(), String> {
    if !Path::new(target).exists() {
        return Err(format!("cannot mount {kind}: there is no {target}"));
    }
    mount(source, target, kind, flags, data).map_err(|error| format!("cannot mount {source} as {kind}: {error}"))
}
