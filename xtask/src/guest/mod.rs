//! The guest: a distribution's kernel, an initrd, and a root file system, prepared once and kept in the cache.
//!
//! Nothing in it is ours but two short scripts (`init.sh`, `shell.sh`): kernel, modules, busybox and root file system are the
//! distribution's packages, downloaded by its apt.

mod bzimage;
pub mod cpio;
mod foreign;
mod initrd;
mod kernel;
mod modules;
mod rootfs;

use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::distro::Distro;
use crate::exec::{Context, Error, Result};
use initrd::Wanted;
use kernel::Kernel;

pub use kernel::elf_of;
pub use modules::load as load_module;

/// The modules that a guest on virtio-mmio needs; their dependencies are looked up.
const GUEST_MODULES: Wanted<'_> = Wanted {
    // Kernels for any PC have the checksum of ext4 as a module, which no list of dependencies names.
    load: &["virtio_mmio", "virtio_blk", "virtio_net", "crc32c_generic", "ext4"],
    spare: &[
        "button",
        "cpuid",
        "dmi-sysfs",
        "evdev",
        "pvpanic-mmio",
        "virtio_balloon",
        "virtio_rng",
        "vmw_vsock_virtio_transport",
    ],
};
/// Those that guests of the platform may need; its own code chooses among them.
const PLATFORM_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "crc32c_generic",
    "libcrc32c",
    "crc32c-intel",
    "erofs",
    "overlay",
    "ext4",
    "vmw_vsock_virtio_transport",
];
/// The modules that make a host of a guest.
const HOST_MODULES: &[&str] =
    &["kvm-amd", "tun", "bridge", "veth", "wireguard", "sch_netem", "nvme", "ext4", "loop", "dm-crypt", "ecb", "xts"];

/// A kernel and everything that belongs to it.
pub struct Assets {
    /// The distribution's kernel as it is shipped.
    pub bzimage: PathBuf,
    /// The ELF inside it.
    pub elf: PathBuf,
    /// The ELF of the distribution's kernel for any PC, without modules.
    pub pc_elf: PathBuf,
    /// Busybox, the modules of [`GUEST_MODULES`], and `init.sh`.
    pub initrd: PathBuf,
    /// A minimal installation of the distribution, an ext4 image.
    pub rootfs: PathBuf,
    /// The modules that the nested host loads, in order.
    pub host_modules: Vec<PathBuf>,
    /// Busybox and the modules that the nested host needs to find its root.
    pub host_initrd: PathBuf,
    kernel: Kernel,
}

impl Assets {
    /// Takes them from the cache, or makes them.
    pub fn prepare(cache: &Cache, distro: &Distro) -> Result<Self> {
        let kernel = kernel::prepare(cache, distro)?;
        let rootfs = rootfs::prepare(cache, distro)?;
        let initrd = initrd::prepare(cache, &kernel, GUEST_MODULES)?;
        let host_initrd = initrd::prepare(cache, &kernel, Wanted { load: &["nvme", "ext4"], spare: &[] })?;
        let host_modules = kernel.modules()?.resolve(HOST_MODULES)?;
        let (bzimage, elf, pc_elf) = (kernel.bzimage(), kernel.elf(), kernel::prepare_pc(cache, distro)?);
        Ok(Self { bzimage, elf, pc_elf, initrd, rootfs, host_modules, host_initrd, kernel })
    }
}

/// Modules of the guest's kernel, as they are shipped.
pub struct Modules {
    /// A /lib/modules/VERSION.
    pub folder: PathBuf,
    /// What guests of the platform need of it, and the lists of depmod, by their names in the folder.
    pub files: Vec<String>,
}

impl Assets {
    /// For the platform's own initrd.
    pub fn modules(&self) -> Result<Modules> {
        let modules = self.kernel.modules()?;
        let folder = modules.root().to_path_buf();
        let lacking = modules.lacking(PLATFORM_MODULES);
        let wanted: Vec<&str> = PLATFORM_MODULES.iter().copied().filter(|name| !lacking.contains(name)).collect();
        let files = modules.resolve(&wanted)?;
        let files =
            files.iter().filter_map(|file| Some(file.strip_prefix(&folder).ok()?.to_string_lossy().into_owned()));
        let lists = ["modules.dep", "modules.builtin"].map(String::from);
        Ok(Modules { files: files.chain(lists).collect(), folder })
    }
}

/// The files that a guest boots: the assets, or their replacements from the environment.
pub struct Guest {
    pub kernel: PathBuf,
    pub elf: PathBuf,
    pub pc_elf: PathBuf,
    pub initrd: PathBuf,
    pub rootfs: PathBuf,
}

impl Guest {
    /// Applies `VMCELL_KERNEL` and `VMCELL_ROOTFS`; `scratch` is for the ELF inside another kernel, and its initrd.
    pub fn choose(assets: &Assets, scratch: &Path) -> Result<Self> {
        let rootfs = named_file("VMCELL_ROOTFS")?.unwrap_or_else(|| assets.rootfs.clone());
        let pc_elf = assets.pc_elf.clone();
        match named_file("VMCELL_KERNEL")? {
            None => {
                let (kernel, elf, initrd) = (assets.bzimage.clone(), assets.elf.clone(), assets.initrd.clone());
                Ok(Self { kernel, elf, pc_elf, initrd, rootfs })
            }
            Some(kernel) => {
                let elf = scratch.join("vmlinux");
                elf_of(&kernel, &elf)?;
                let initrd = foreign::initrd(&kernel, &elf, &assets.kernel, GUEST_MODULES, scratch)?;
                Ok(Self { kernel, elf, pc_elf, initrd, rootfs })
            }
        }
    }
}

fn named_file(variable: &str) -> Result<Option<PathBuf>> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(value);
    let path = path.canonicalize().context(format_args!("{variable}={}", path.display()))?;
    if path.is_dir() {
        return Err(Error::new(format!("{variable}={} is a directory; a file is wanted", path.display())));
    }
    eprintln!("xtask: {variable}: {}", path.display());
    Ok(Some(path))
}
