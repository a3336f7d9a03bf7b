//! Our launcher, of this tree or another build.

use std::path::PathBuf;
use std::process::Command;

use super::machine::{MEMORY_MIB, Machine};
use crate::args::LauncherOption;
use crate::cargo;
use crate::exec::{Context, Result};

const PAGES: &str = "--pages";

pub struct Launcher {
    path: PathBuf,
    disk_options: Vec<String>,
    arguments: Vec<String>,
    /// Does it know how to ask for transparent huge pages?
    huge_pages: bool,
}

impl Launcher {
    /// Builds it if it is the one of this tree.
    pub fn find(option: &LauncherOption, profile: &str) -> Result<Self> {
        let LauncherOption { path, disk_options, arguments, .. } = option.clone();
        let path = if path.is_empty() { cargo::build_launcher(profile)? } else { path.into() };
        let help = Command::new(&path).arg("--help").output().context(path.display())?;
        let huge_pages = String::from_utf8_lossy(&help.stdout).contains(PAGES);
        Ok(Self { path, disk_options, arguments, huge_pages })
    }

    /// Its path, and the options that it is given in every row.
    pub fn about(&self) -> String {
        let options = self.disk_options.iter().map(|option| format!("--disk ..,{option}"));
        let words = std::iter::once(self.path.display().to_string()).chain(options).chain(self.arguments.clone());
        words.collect::<Vec<_>>().join(" ")
    }

    pub fn command(&self, machine: &Machine<'_>) -> Command {
        let mut launch = Command::new(&self.path);
        launch.arg("--kernel").arg(machine.guest).args(["--cmdline", &machine.cmdline]);
        launch.args(["--memory", &MEMORY_MIB.to_string()]);
        match machine.initrd {
            Some(initrd) => launch.arg("--initrd").arg(initrd),
            None => launch.args(["--discovery", "cmdline"]),
        };
        if self.huge_pages && machine.huge_pages {
            launch.args([PAGES, "transparent"]);
        }
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
