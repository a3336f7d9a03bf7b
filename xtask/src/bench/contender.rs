//! Who takes part: launchers of ours, Firecracker, QEMU, and the floor; and the command line of each.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::args::{BenchOptions, LauncherOption};
use crate::cargo;
use crate::exec::{self, Context, Result};

/// The guest's memory under every monitor.
pub const MEMORY_MIB: u64 = 128;

const MAC: &str = "02:00:00:00:be:02";
const QEMU: &str = "qemu-system-x86_64";
/// Nothing that the guest does not use, and the modern registers of virtio-mmio.
const QEMU_MACHINE: &[&str] = &[
    "-M",
    "microvm,acpi=off,rtc=off,pit=off,pic=off,isa-serial=on,auto-kernel-cmdline=on",
    "-enable-kvm",
    // Without the MSR that software KVM refuses.
    "-cpu",
    "host,-arch-capabilities",
    "-global",
    "virtio-mmio.force-legacy=false",
    "-smp",
    "1",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-serial",
    "stdio",
    // Threads have names, by which the vCPU's is known.
    "-name",
    "bench,debug-threads=on",
];

/// One that takes part.
pub struct Contender {
    pub label: String,
    pub kind: Kind,
}

pub enum Kind {
    Launcher(Launcher),
    Firecracker(PathBuf),
    Qemu,
    /// The system calls without a guest.
    Floor,
}

pub struct Launcher {
    path: PathBuf,
    disk_options: Vec<String>,
    arguments: Vec<String>,
}

/// What a guest is given.
pub struct Machine<'a> {
    pub guest: &'a Path,
    pub cmdline: String,
    pub disk: Option<Disk<'a>>,
    pub tap: Option<&'a str>,
    /// For files that a monitor is started with.
    pub scratch: &'a Path,
}

pub struct Disk<'a> {
    pub path: &'a Path,
    pub direct: bool,
}

/// Everyone who takes part, and notes on those who cannot.
pub fn all(options: &BenchOptions) -> Result<(Vec<Contender>, Vec<String>)> {
    let (mut contenders, mut absent) = (Vec::new(), Vec::new());
    let default = [LauncherOption::default()];
    let launchers = if options.launchers.is_empty() { &default[..] } else { &options.launchers };
    for launcher in launchers {
        let path = if launcher.path.is_empty() { cargo::build_launcher()? } else { launcher.path.clone().into() };
        let (disk_options, arguments) = (launcher.disk_options.clone(), launcher.arguments.clone());
        let kind = Kind::Launcher(Launcher { path, disk_options, arguments });
        contenders.push(Contender { label: launcher.label.clone(), kind });
    }
    match &options.firecracker {
        Some(path) => contenders.push(Contender { label: "firecracker".into(), kind: Kind::Firecracker(path.into()) }),
        None => absent.push("firecracker: not given, see --firecracker PATH".into()),
    }
    match (options.qemu, exec::exists(QEMU)) {
        (true, true) => contenders.push(Contender { label: "qemu".into(), kind: Kind::Qemu }),
        (true, false) => absent.push("qemu: not installed".into()),
        (false, _) => absent.push("qemu: left out, as asked".into()),
    }
    contenders.push(Contender { label: "floor".into(), kind: Kind::Floor });
    Ok((contenders, absent))
}

impl Contender {
    /// The command that starts this machine; `None` for one that is no monitor.
    pub fn command(&self, machine: &Machine<'_>) -> Result<Option<Command>> {
        match &self.kind {
            Kind::Launcher(launcher) => Ok(Some(launcher.command(machine))),
            Kind::Firecracker(path) => firecracker(path, machine).map(Some),
            Kind::Qemu => Ok(Some(qemu(machine))),
            Kind::Floor => Ok(None),
        }
    }
}

impl Launcher {
    fn command(&self, machine: &Machine<'_>) -> Command {
        let mut launch = Command::new(&self.path);
        launch.arg("--kernel").arg(machine.guest).args(["--cmdline", &machine.cmdline, "--discovery", "cmdline"]);
        launch.args(["--memory", &MEMORY_MIB.to_string()]);
        if let Some(disk) = &machine.disk {
            let mut text = disk.path.to_string_lossy().into_owned();
            let direct = disk.direct.then(|| "direct".to_string());
            for option in self.disk_options.iter().chain(&direct) {
                text = text + "," + option;
            }
            launch.args(["--disk", &text]);
        }
        if let Some(tap) = machine.tap {
            launch.args(["--tap", tap]);
        }
        launch.args(&self.arguments);
        launch
    }
}

fn firecracker(path: &Path, machine: &Machine<'_>) -> Result<Command> {
    let mut config = json!({
        "boot-source": { "kernel_image_path": machine.guest, "boot_args": machine.cmdline },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY_MIB },
        "drives": [],
    });
    if let Some(disk) = &machine.disk {
        config["drives"] = json!([{
            "drive_id": "disk",
            "path_on_host": disk.path,
            "is_root_device": false,
            "is_read_only": false,
            // The guest flushes when it wants to, as with the others.
            "cache_type": "Writeback",
            "io_engine": "Async",
        }]);
    }
    if let Some(tap) = machine.tap {
        config["network-interfaces"] = json!([{ "iface_id": "net", "guest_mac": MAC, "host_dev_name": tap }]);
    }
    let file = machine.scratch.join("firecracker.json");
    std::fs::write(&file, config.to_string()).context(file.display())?;
    let mut command = Command::new(path);
    command.args(["--no-api", "--level", "Error", "--log-path"]).arg(machine.scratch.join("firecracker.log"));
    command.arg("--config-file").arg(file);
    Ok(command)
}

fn qemu(machine: &Machine<'_>) -> Command {
    let mut command = Command::new(QEMU);
    command.args(QEMU_MACHINE).args(["-m", &MEMORY_MIB.to_string()]);
    command.arg("-kernel").arg(machine.guest).args(["-append", &machine.cmdline]);
    if let Some(disk) = &machine.disk {
        let direct = if disk.direct { "on" } else { "off" };
        let path = disk.path.display();
        let medium = format!("driver=file,node-name=disk,filename={path},aio=io_uring,cache.direct={direct}");
        command.args(["-object", "iothread,id=io", "-blockdev", &medium]);
        command.args(["-device", "virtio-blk-device,drive=disk,iothread=io"]);
    }
    if let Some(tap) = machine.tap {
        let card = format!("tap,id=net,ifname={tap},script=no,downscript=no,vhost=off");
        command.args(["-netdev", &card, "-device", "virtio-net-device,netdev=net"]);
    }
    command
}
