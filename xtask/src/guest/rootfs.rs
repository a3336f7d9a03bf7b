//! The root file system: a minimal installation of the host's own release, as an ext4 image.
//!
//! The nested host runs on it too. As it is the host's release, programs that were built on the host run there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::distro::Distro;
use crate::exec::{self, Context, Error, Result};

const PACKAGES: &str = "bash,busybox-static,ca-certificates,cloud-init,cryptsetup-bin,curl,e2fsprogs,fio,iperf3,iproute2,iputils-ping,kmod,mount,nginx-light,nmap,passt,pebble,postgresql,procps,python3-bottle,rng-tools5,socat,sqlite3,systemd,util-linux,wireguard-go,wireguard-tools";
/// Left out of the image, because nobody reads them in a guest, or, as Postgres's compiler of queries, because nobody runs them.
const EXCLUDE: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/lib/x86_64-linux-gnu/libLLVM*",
    "/usr/lib/llvm-*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
];
/// The file is sparse, so its free room costs nothing until a guest writes to it.
const SIZE: &str = "1G";

/// The image in the cache. It must not be modified: guests get a copy or a snapshot.
pub fn prepare(cache: &Cache, distro: &Distro) -> Result<PathBuf> {
    let recipe = format!("rootfs 2 {} {} {PACKAGES} {EXCLUDE:?} {SIZE}", distro.id, distro.codename);
    let entry = cache.entry("rootfs", &recipe, |dir| build(dir, distro))?;
    Ok(entry.join("rootfs.ext4"))
}

fn build(dir: &Path, distro: &Distro) -> Result<()> {
    eprintln!("xtask: making a root file system of {} {} (a minute or two)", distro.id, distro.codename);
    let tar = dir.join("rootfs.tar");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}")]);
    bootstrap.args(EXCLUDE.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    if !exec::is_root() {
        bootstrap.arg("--mode=unshare");
    }
    bootstrap.arg(&distro.codename).arg(&tar).args(distro.sources()?);
    exec::capture(&mut bootstrap)?;
    image(dir, &tar)?;
    std::fs::remove_file(&tar).context(tar.display())
}

/// From the archive to the image. One command unpacks and reads back, so that fakeroot remembers the owners in between.
fn image(dir: &Path, tar: &Path) -> Result<()> {
    const SCRIPT: &str = "mkdir \"$1/root\" && tar -C \"$1/root\" --numeric-owner -xpf \"$2\" && \
        /sbin/mke2fs -q -F -t ext4 -L vmcell -m 0 -E lazy_itable_init=0 -d \"$1/root\" \"$1/rootfs.ext4\" \"$3\" && rm -rf \"$1/root\"";
    let mut shell = if exec::is_root() { Command::new("sh") } else { Command::new("fakeroot") };
    if !exec::is_root() {
        shell.args(["--", "sh"]);
    }
    shell.args(["-c", SCRIPT, "sh"]).arg(dir).arg(tar).arg(SIZE);
    exec::capture(&mut shell).map_err(|error| Error::new(format!("cannot make the root file system: {error}")))?;
    Ok(())
}
