//! `cargo xtask run`: a distribution's kernel and root file system in a micro-VM, and its console.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// What the nested host does when it is up; the marker tells us the launcher's exit status.
const NESTED_MAIN: &str = include_str!("nested/run.sh");

/// Everything that both ways of running need.
struct Prepared {
    assets: Assets,
    guest: Guest,
    launcher: PathBuf,
    /// The guest's initrd, with the script in it if there is one.
    initrd: PathBuf,
    scratch: Scratch,
}

/// Runs it; gives the exit status.
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
    let prepared = prepare(&distro)?;
    if direct { run_direct(&prepared, options) } else { run_nested(&prepared, options) }
}

fn prepare(distro: &Distro) -> Result<Prepared> {
    let cache = Cache::open()?;
    eprintln!("xtask: guests are kept in {}", cache.root().display());
    let assets = Assets::prepare(&cache, distro)?;
    let scratch = Scratch::new(cache.root(), "run")?;
    let guest = Guest::choose(&assets, scratch.path())?;
    eprintln!("xtask: building the launcher (cargo build --release --example launch)");
    let launcher = cargo::build_launcher()?;
    let initrd = with_script(&guest.initrd, &scratch)?;
    Ok(Prepared { assets, guest, launcher, initrd, scratch })
}

/// Without a terminal, what standard input holds is the guest's script: put into the initrd, no byte of it can be lost on a
/// serial line that nobody reads yet.
fn with_script(initrd: &Path, scratch: &Scratch) -> Result<PathBuf> {
    if terminal::is_interactive() {
        return Ok(initrd.into());
    }
    eprintln!("xtask: standard input is no terminal: the guest's shell gets what it holds, then the guest powers off");
    let mut script = Vec::new();
    io::stdin().read_to_end(&mut script).context("standard input")?;
    let mut archive = cpio::Archive::default();
    archive.file("script", false, &script);
    let mut bytes = std::fs::read(initrd).context(initrd.display())?;
    bytes.extend(archive.finish());
    let path = scratch.path().join("initrd.img");
    std::fs::write(&path, bytes).context(path.display())?;
    Ok(path)
}

/// A TAP device needs them.
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
        // It goes with its name; if it is gone already, so much the better.
        let _ = exec::capture(Command::new("sh").args(["-c", &launcher::tap_down()]));
    }
}

fn run_direct(prepared: &Prepared, options: &RunOptions) -> Result<u8> {
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
    let (status, shell) = watch(&mut command)?;
    overall(status, shell)
}

fn run_nested(prepared: &Prepared, options: &RunOptions) -> Result<u8> {
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
    };
    let mut qemu = machine.command();
    eprintln!("xtask: network, in the nested host: {}", launcher::tap_up());
    eprintln!("xtask: running, in the nested host\n\n    {}\n", launcher::pretty(&command));
    eprintln!("xtask: the nested host takes some seconds to start; everything here is emulated and slow");
    let _terminal = terminal::Saved::now();
    let (_, shell) = watch(&mut qemu)?;
    let markers = std::fs::read_to_string(&markers).unwrap_or_default();
    let Some(status) = launcher_status(&markers) else {
        return Err(Error::new("the nested host ended before the launcher did"));
    };
    overall(status, shell)
}

/// The exit status: the launcher's if it failed, else that of the guest's shell where it ran a script.
fn overall(launcher: u8, shell: Shell) -> Result<u8> {
    match (launcher, shell) {
        (0, Shell::Ended(status)) => Ok(status),
        (0, Shell::Unknown) => Err(Error::new("the guest ended before its shell did")),
        (status, _) => Ok(status),
    }
}

/// What is known of the guest's shell.
enum Shell {
    /// It ended with this status; at a terminal, where a person saw it all, that counts as 0.
    Ended(u8),
    Unknown,
}

fn launcher_status(markers: &str) -> Option<u8> {
    markers.lines().find_map(|line| line.trim().strip_prefix("@vmcell launcher ")?.parse().ok())
}

/// Runs what shows the guest's console; gives its exit status and what is known of the guest's shell.
fn watch(command: &mut Command) -> Result<(u8, Shell)> {
    if terminal::is_interactive() {
        let status = command.status().context(exec::show(command))?;
        return Ok((exit_status(status), Shell::Ended(0)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().context(exec::show(command))?);
    let shell = child.0.stdout.take().map(relay).transpose().context("the guest's console")?.flatten();
    let status = child.0.wait().context(exec::show(command))?;
    Ok((exit_status(status), shell.map_or(Shell::Unknown, Shell::Ended)))
}

/// Copies the console to standard output and looks for what `guest/shell.sh` says last.
fn relay(console: impl Read) -> io::Result<Option<u8>> {
    let (mut console, mut line, mut status) = (BufReader::new(console), Vec::new(), None);
    while console.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        io::stdout().flush()?;
        status = script_status(&String::from_utf8_lossy(&line)).or(status);
        line.clear();
    }
    Ok(status)
}

fn script_status(line: &str) -> Option<u8> {
    line.trim().strip_prefix("vmcell: the guest's shell ended with status ")?.parse().ok()
}

fn exit_status(status: std::process::ExitStatus) -> u8 {
    // Ended by a signal: as a shell has it, a failure.
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Killed when dropped, if it still runs: when our own output is closed, say.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    fn the_script_s_status_is_read_from_the_console() {
        assert_eq!(script_status("vmcell: the guest's shell ended with status 7\r\n"), Some(7));
        assert_eq!(script_status("# echo vmcell: the guest's shell ended with status 7"), None);
    }
}
