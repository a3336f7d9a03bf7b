//! The distribution's packages that the commands need: which are missing, and their installation, which is announced
//! first.

use std::process::{Command, Stdio};

use crate::distro::Distro;
use crate::exec::{self, Error, Result};

/// The purpose of a package; a command asks for the purposes that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Building the crate and its tests.
    Build,
    /// Preparing a guest: kernel, initrd, root file system.
    Guest,
    /// The nested host.
    Nested,
    /// A network for guests on this host.
    Network,
    /// Counting instructions.
    Count,
    /// Programs that do the same as the library, and are compared with it.
    Oracle,
    /// Another program that does what the edge does.
    Proxy,
    /// A browser, which shows a page in a test.
    Browser,
    /// The C interface: its installation, and the programs that test it.
    CFace,
}

/// Why a package is needed, for the message before it is installed. `root` says whether root, others, or both need it.
struct Row {
    package: &'static str,
    purpose: Purpose,
    root: Option<bool>,
    why: &'static str,
}

const fn row(package: &'static str, purpose: Purpose, why: &'static str) -> Row {
    Row { package, purpose, root: None, why }
}

const TABLE: &[Row] = &[
    row("gcc", Purpose::Build, "links Rust programs"),
    row("libc6-dev", Purpose::Build, "links Rust programs"),
    row("busybox-static", Purpose::Guest, "the initrd's only program"),
    row("e2fsprogs", Purpose::Guest, "makes the root file system's image"),
    row("kmod", Purpose::Guest, "tells which modules need which"),
    row("lz4", Purpose::Guest, "unpacks the kernel"),
    row("mmdebstrap", Purpose::Guest, "makes the root file system"),
    row("xz-utils", Purpose::Guest, "unpacks the kernel and its modules"),
    row("zstd", Purpose::Guest, "unpacks the kernel and its modules"),
    Row {
        package: "fakeroot",
        purpose: Purpose::Guest,
        root: Some(false),
        why: "owners in the image without being root",
    },
    Row { package: "uidmap", purpose: Purpose::Guest, root: Some(false), why: "mmdebstrap without being root" },
    row("qemu-system-x86", Purpose::Nested, "the nested host"),
    row("seabios", Purpose::Nested, "the nested host's firmware"),
    row("iproute2", Purpose::Network, "TAP devices and their addresses"),
    row("valgrind", Purpose::Count, "counts instructions"),
    row("clang", Purpose::CFace, "compiles the tests in C"),
    row("libclang-rt-dev", Purpose::CFace, "clang's AddressSanitizer"),
    row("g++", Purpose::CFace, "compiles the header as C++"),
    row("golang-go", Purpose::CFace, "the package and the launcher in Go"),
    row("libssl-dev", Purpose::CFace, "cargo-c is built with it"),
    row("make", Purpose::CFace, "builds the launcher in C"),
    row("pkg-config", Purpose::CFace, "finds the installed library"),
    row("python3", Purpose::CFace, "the documentation's example"),
    row("age", Purpose::Oracle, "encrypts what the tests import as secrets"),
    row("curl", Purpose::Oracle, "asks what the edge serves"),
    row("pebble", Purpose::Oracle, "gives the edge certificates in a test"),
    row("nghttp2-client", Purpose::Oracle, "puts load on the edge (h2load)"),
    row("skopeo", Purpose::Oracle, "writes images that the platform reads in a test"),
    row("umoci", Purpose::Oracle, "makes images that the platform reads in a test"),
    row("nginx-light", Purpose::Proxy, "a proxy, which the edge is measured beside"),
    row("chromium-driver", Purpose::Browser, "drives Chromium, which comes with it"),
    row("cryptsetup-bin", Purpose::Oracle, "reads and writes encrypted volumes as the tests do"),
    row("python3-prometheus-client", Purpose::CFace, "reads the metrics in a test"),
    row("valgrind", Purpose::CFace, "finds leaks in the tests in C"),
];

/// Makes sure that everything for `purposes` is there.
///
/// # Errors
/// A package is missing and we may not install it (the message is the one command to run), or apt failed.
pub fn ensure(distro: &Distro, purposes: &[Purpose]) -> Result<()> {
    let root = exec::is_root();
    let mut missing = wanted(purposes, root);
    if purposes.contains(&Purpose::Guest) {
        missing.push((distro.keyring_package(), "the keys of the distribution's archive"));
    }
    missing.retain(|(package, _)| !installed(package));
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    eprintln!("xtask: missing packages:");
    for (package, why) in &missing {
        eprintln!("xtask:   {package:<24} {why}");
    }
    if !root {
        return Err(Error::new(format!("not root, so nothing was installed; run\n\n    {}\n", by_hand(&names))));
    }
    install(&names)
}

fn wanted(purposes: &[Purpose], root: bool) -> Vec<(&'static str, &'static str)> {
    let rows = TABLE.iter().filter(|row| purposes.contains(&row.purpose) && row.root.is_none_or(|only| only == root));
    rows.map(|row| (row.package, row.why)).collect()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

fn install(names: &[&str]) -> Result<()> {
    eprintln!("xtask: installing them with apt-get");
    update()?;
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--no-install-recommends", "-qq"]).args(names);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    exec::capture(&mut apt).map(drop)
}

/// Refreshes apt's lists; the caller is root.
pub fn update() -> Result<()> {
    exec::capture(Command::new("apt-get").args(["update", "-qq"])).map(drop)
}

fn by_hand(names: &[&str]) -> String {
    let names = names.join(" ");
    format!("sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends {names}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(purposes: &[Purpose], root: bool) -> Vec<&'static str> {
        wanted(purposes, root).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn only_packages_of_the_purposes_are_wanted() {
        assert_eq!(names(&[Purpose::Nested], true), ["qemu-system-x86", "seabios"]);
        assert!(names(&[], true).is_empty());
    }

    #[test]
    fn fakeroot_is_wanted_by_users_only() {
        assert!(!names(&[Purpose::Guest], true).contains(&"fakeroot"));
        assert!(names(&[Purpose::Guest], false).contains(&"fakeroot"));
    }

    #[test]
    fn the_command_to_run_is_one_line() {
        assert_eq!(by_hand(&["a", "b"]).lines().count(), 1);
        assert!(by_hand(&["a", "b"]).contains("install -y --no-install-recommends a b"));
    }
}
