//! Who takes part: launchers of ours, Firecracker, QEMU, and the floor; and the command line of each.

mod firecracker;
mod launcher;
mod machine;
mod qemu;

use std::path::Path;
use std::process::Command;

use firecracker::Firecracker;
use launcher::Launcher;
pub use machine::{Disk, MEMORY_MIB, Machine};

use crate::args::{BenchOptions, LauncherOption};
use crate::exec::{self, Result};

/// One that takes part.
pub struct Contender {
    pub label: String,
    pub kind: Kind,
}

pub enum Kind {
    Launcher(Launcher),
    Firecracker(Firecracker),
    Qemu,
    /// The system calls without a guest.
    Floor,
}

/// Everyone who takes part, and notes on those who cannot.
pub fn all(options: &BenchOptions, scratch: &Path) -> Result<(Vec<Contender>, Vec<String>)> {
    let (mut contenders, mut absent) = (Vec::new(), Vec::new());
    let default = [LauncherOption::default()];
    let launchers = if options.launchers.is_empty() { &default[..] } else { &options.launchers };
    for option in launchers {
        let kind = Kind::Launcher(Launcher::find(option)?);
        contenders.push(Contender { label: option.label.clone(), kind });
    }
    match &options.firecracker {
        Some(path) => {
            let kind = Kind::Firecracker(Firecracker::probe(Path::new(path), scratch)?);
            contenders.push(Contender { label: "firecracker".into(), kind });
        }
        None => absent.push("firecracker: not given, see --firecracker PATH".into()),
    }
    match (options.qemu, exec::exists(qemu::PROGRAM)) {
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
            Kind::Firecracker(firecracker) => firecracker.command(machine).map(Some),
            Kind::Qemu => Ok(Some(qemu::command(machine))),
            Kind::Floor => Ok(None),
        }
    }
}
