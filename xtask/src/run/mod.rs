//! `cargo xtask run`: a distribution's kernel and root file system in a micro-VM, and its console.

mod console;
mod input;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::RunOptions;
use crate::cache::Cache;
use crate::distro::Distro;
use crate::exec::{self, Context, Error, Result};
use crate::guest::{Assets, Guest, cpio};
use crate::host::Kvm;
use crate::launcher::{self, Files};
use crate::nested::image::{self, Item};
use crate::nested::qemu::{self, Machine, Serial};
use crate::packages::{self, Purpose};
use crate::scratch::Scratch;
use crate::{cargo, terminal};
use console::Ended;
use input::Input;

/// The nested host's script; its marker tells us the launcher's exit status.
const NESTED_MAIN: &str = include_str!("../nested/run.sh");

/// QEMU's nested SVM hangs now and then.
const NESTED_STARTS: u32 = 3;

/// Everything that both ways of running need.
struct Prepared {
    assets: Assets,
    guest: Guest,
    launcher: PathBuf,
    /// The guest's initrd, with the script in it if there is one.
    initrd: PathBuf,
    input: Input,
    scratch: Scratch,
}

/// Runs it; returns the exit status.
pub fn run(options: &RunOptions) -> Result<u8> {
    let kvm = Kvm::detect();
    let direct = kvm.boots_linux() && !options.nested;
    let where_to = match (direct, kvm.boots_linux()) {
        (true, _) => "the guest runs directly on it",
        (false, true) => "the guest runs in the nested host, as asked",
        (false, false) => "Linux does not boot on it, so the guest runs in the nested host (QEMU)",
    };
    eprintln!("xtask: this host has {kvm}: {where_to}");
    if direct {
        check_network_rights()?;
    }
    let distro = Distro::detect()?;
    let place = if direct { Purpose::Network } else { Purpose::Nested };
    packages::ensure(&distro, &[Purpose::Build, Purpose::Guest, place])?;
    let mut prepared = prepare(&distro)?;
    if direct { run_direct(&mut prepared, options) } else { run_nested(&mut prepared, options) }
}

fn prepare(distro: &Distro) -> Result<Prepared> {
    let cache = Cache::open()?;
    eprintln!("xtask: guests are kept in {}", cache.root().display());
    let assets = Assets::prepare(&cache, distro)?;
    let scratch = Scratch::new(cache.root(), "run")?;
    let guest = Guest::choose(&assets, scratch.path())?;
    eprintln!("xtask: building the launcher (cargo build --release --example launch)");
    let launcher = cargo::build_launcher(cargo::RELEASE)?;
    let input = Input::open();
    eprintln!("xtask: {}", input.describe());
    let initrd = match &input {
        Input::Script(script) => with_script(&guest.initrd, script, &scratch)?,
        _ => guest.initrd.clone(),
    };
    Ok(Prepared { assets, guest, launcher, initrd, input, scratch })
}

/// The initrd with `script` appended, which the guest's shell then runs.
fn with_script(initrd: &Path, script: &[u8], scratch: &Scratch) -> Result<PathBuf> {
    let mut archive = cpio::Archive::default();
    archive.file("script", false, script);
    let mut bytes = std::fs::read(initrd).context(initrd.display())?;
    bytes.extend(archive.finish());
    let path = scratch.path().join("initrd.img");
    std::fs::write(&path, bytes).context(path.display())?;
    Ok(path)
}

/// A TAP device needs root or CAP_NET_ADMIN.
fn check_network_rights() -> Result<()> {
    const CAP_NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if effective & (1 << CAP_NET_ADMIN) != 0 {
        return Ok(());
    }
    Err(Error::new(
        "making a TAP device is refused: it needs root or CAP_NET_ADMIN; run\n\n    sudo -E env PATH=\"$PATH\" cargo xtask run\n\n\
         or use the nested host, which needs no rights: cargo xtask run --nested",
    ))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Unmakes the TAP device when dropped.
struct Tap;

impl Tap {
    fn up() -> Result<Self> {
        exec::capture(Command::new("sh").args(["-c", &launcher::tap_up()])).map_err(|error| {
            let (tap, down) = (launcher::TAP, launcher::tap_down());
            Error::new(format!("cannot make {tap}: {error}\nif it is left from another run, remove it: {down}"))
        })?;
        Ok(Self)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The script removes it by its name; if it is gone already, so much the better.
        let _ = exec::capture(Command::new("sh").args(["-c", &launcher::tap_down()]));
    }
}

fn run_direct(prepared: &mut Prepared, options: &RunOptions) -> Result<u8> {
    let disk = prepared.scratch.path().join("root.ext4");
    eprintln!("xtask: copying the root file system, so that the cached one stays as it is");
    let mut copy = Command::new("cp");
    exec::capture(copy.args(["--sparse=always", "--reflink=auto"]).arg(&prepared.guest.rootfs).arg(&disk))?;
    let files = Files {
        launcher: text(&prepared.launcher),
        kernel: text(&prepared.guest.kernel),
        initrd: text(&prepared.initrd),
        disk: text(&disk),
    };
    let mut command = launcher::command(&files, options);
    let _tap = Tap::up()?;
    eprintln!("xtask: network: {}", launcher::tap_up());
    eprintln!("xtask: running\n\n    {}\n", launcher::pretty(&command));
    let _terminal = terminal::Saved::now();
    match console::watch(&mut command, &mut prepared.input)? {
        Ended::Exited { status, shell } => overall(status, shell),
        Ended::NotUp => Err(Error::new("the guest did not come up in time, and was ended")),
    }
}

fn run_nested(prepared: &mut Prepared, options: &RunOptions) -> Result<u8> {
    let on_disk = |name: &str| format!("{}/{name}", image::MOUNT);
    let files = Files {
        launcher: on_disk("launch"),
        kernel: on_disk("vmlinuz"),
        initrd: on_disk("run-initrd.img"),
        disk: image::ROOTFS.into(),
    };
    let command = launcher::command(&files, options);
    let main = NESTED_MAIN.replace("@TAP_UP@", &launcher::tap_up()).replace("@LAUNCH@", &exec::show(&command));
    let mut items = image::guest_items(&prepared.guest);
    items.push(Item { name: "launch".into(), from: prepared.launcher.clone() });
    items.push(Item { name: "run-initrd.img".into(), from: prepared.initrd.clone() });
    let disk = image::make(&prepared.scratch, &prepared.assets, &items, &main)?;
    let markers = prepared.scratch.path().join("markers");
    let machine = Machine {
        assets: &prepared.assets,
        disk: &disk,
        guest_rootfs: &prepared.guest.rootfs,
        memory_mib: qemu::fitting(1).1,
        serial: Serial::Terminal { markers: &markers },
        counts_instructions: false,
    };
    eprintln!("xtask: network, in the nested host: {}", launcher::tap_up());
    eprintln!("xtask: running, in the nested host\n\n    {}\n", launcher::pretty(&command));
    eprintln!("xtask: the nested host takes some seconds to start; everything here is emulated and slow");
    let _terminal = terminal::Saved::now();
    for start in 1..=NESTED_STARTS {
        match console::watch(&mut machine.command(), &mut prepared.input)? {
            Ended::NotUp => {
                eprintln!("\nxtask: start {start} of {NESTED_STARTS}: the nested host hung before its guest was up")
            }
            Ended::Exited { shell, .. } => {
                let markers = std::fs::read_to_string(&markers).unwrap_or_default();
                let status = launcher_status(&markers);
                let status = status.ok_or_else(|| Error::new("the nested host ended before the launcher did"))?;
                return overall(status, shell);
            }
        }
    }
    Err(Error::new("the guest did not come up in time, and was ended"))
}

/// The exit status: the launcher's if it failed, else that of the guest's shell.
fn overall(launcher: u8, shell: Option<u8>) -> Result<u8> {
    match (launcher, shell) {
        (0, Some(status)) => Ok(status),
        (0, None) => Err(Error::new("the guest ended before its shell did")),
        (status, _) => Ok(status),
    }
}

fn launcher_status(markers: &str) -> Option<u8> {
    markers.lines().find_map(|line| line.trim().strip_prefix("@vmcell launcher ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_s_status_is_read_from_the_markers() {
        assert_eq!(launcher_status("noise\r\n@vmcell launcher 1\r\n"), Some(1));
        assert_eq!(launcher_status("@vmcell launcher\n"), None);
    }

    #[test]
    fn a_failed_launcher_decides_and_then_the_shell() {
        assert_eq!(overall(1, Some(0)).unwrap(), 1);
        assert_eq!(overall(0, Some(3)).unwrap(), 3);
        assert!(overall(0, None).is_err());
    }
}
