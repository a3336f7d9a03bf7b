//! Who takes part: launchers of ours, Firecracker, QEMU, and the floor; and the command line of each.

mod firecracker;
mod launcher;
mod machine;
mod qemu;

use std::path::{Path, PathBuf};
use std::process::Command;

use firecracker::Firecracker;
use launcher::Launcher;
pub use machine::{Disk, MEMORY_MIB, Machine};

use crate::args::{BenchOptions, LauncherOption};
use crate::exec::{self, Result};

/// One that takes part.
pub struct Contender {
    pub label: String,
    /// Which build or version it is, and what it is given beside the machine.
    pub about: String,
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
        let launcher = Launcher::find(option, options.profile)?;
        let (label, about) = (option.label.clone(), launcher.about());
        contenders.push(Contender { label, about, kind: Kind::Launcher(launcher) });
    }
    match &options.firecracker {
        Some(path) => {
            let kind = Kind::Firecracker(Firecracker::probe(Path::new(path), scratch)?);
            contenders.push(Contender { label: "firecracker".into(), about: version(path)?, kind });
        }
        None => absent.push("firecracker: not given, see --firecracker PATH".into()),
    }
    match (options.qemu, exec::exists(qemu::PROGRAM)) {
        (true, true) => {
            let about = version(qemu::PROGRAM)?;
            contenders.push(Contender { label: "qemu".into(), about, kind: Kind::Qemu });
        }
        (true, false) => absent.push("qemu: not installed".into()),
        (false, _) => absent.push("qemu: left out, as asked".into()),
    }
    let about = "the system calls without a guest".into();
    contenders.push(Contender { label: "floor".into(), about, kind: Kind::Floor });
    Ok((contenders, absent))
}

/// The first line of what a program says of its version.
pub fn version(program: &str) -> Result<String> {
    let text = exec::capture_text(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().into())
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

    /// Files that the monitor looks for in a folder that `-L` names, if it does.
    pub fn firmware(&self) -> Vec<PathBuf> {
        if let Kind::Qemu = self.kind { qemu::firmware() } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(direct: bool) -> Machine<'static> {
        let disk = Some(Disk { path: Path::new("/d"), direct });
        Machine {
            guest: Path::new("/g"),
            initrd: None,
            cmdline: "bench=none".into(),
            disk,
            tap: Some("t"),
            huge_pages: true,
            scratch: Path::new("/s"),
        }
    }

    #[test]
    fn a_launcher_gets_its_options_with_those_of_the_row() {
        let option = LauncherOption {
            path: "/bin/echo".into(),
            disk_options: vec!["engine=uring".into()],
            arguments: vec!["--poll-us".into(), "50".into()],
            ..LauncherOption::default()
        };
        let launcher = Launcher::find(&option, "").unwrap();
        let line = exec::show(&launcher.command(&machine(true)));
        assert!(line.ends_with("--disk /d,engine=uring,direct --tap t --poll-us 50"), "{line}");
        // It says what it is told, so it seems not to know more than its options.
        assert!(!line.contains("transparent"), "{line}");
        assert!(launcher.about().contains("engine=uring"), "{}", launcher.about());
    }

    #[test]
    fn qemu_has_the_same_cache_mode_and_no_vhost() {
        let line = exec::show(&qemu::command(&machine(true)));
        assert!(line.contains("aio=io_uring,cache.direct=on") && line.contains("vhost=off"), "{line}");
        assert!(exec::show(&qemu::command(&machine(false))).contains("cache.direct=off"));
    }
}
