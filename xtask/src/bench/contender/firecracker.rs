//! Firecracker, as fast as its options make it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::machine::{MEMORY_MIB, Machine};
use crate::exec::{Context, Result};

const MAC: &str = "02:00:00:00:be:02";
const HUGE_PAGES: &str = "Transparent";

pub struct Firecracker {
    path: PathBuf,
    /// Does it know how to ask for transparent huge pages?
    huge_pages: bool,
}

impl Firecracker {
    /// Asks the program what it can do.
    pub fn probe(path: &Path, scratch: &Path) -> Result<Self> {
        let mut firecracker = Self { path: path.into(), huge_pages: true };
        // It refuses a guest that is not there, unless it has refused the word before.
        let nothing = scratch.join("no-guest");
        let machine = Machine {
            guest: &nothing,
            initrd: None,
            cmdline: String::new(),
            disk: None,
            tap: None,
            huge_pages: true,
            scratch,
        };
        let output = firecracker.command(&machine)?.output().context(path.display())?;
        let said = [output.stdout, output.stderr].concat();
        firecracker.huge_pages = !String::from_utf8_lossy(&said).contains(HUGE_PAGES);
        Ok(firecracker)
    }

    pub fn command(&self, machine: &Machine<'_>) -> Result<Command> {
        let file = machine.scratch.join("firecracker.json");
        std::fs::write(&file, self.config(machine).to_string()).context(file.display())?;
        let mut command = Command::new(&self.path);
        command.args(["--no-api", "--level", "Error", "--log-path"]).arg(machine.scratch.join("firecracker.log"));
        command.arg("--config-file").arg(file);
        Ok(command)
    }

    fn config(&self, machine: &Machine<'_>) -> Value {
        let mut config = json!({
            "boot-source": { "kernel_image_path": machine.guest, "boot_args": machine.cmdline },
            "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY_MIB },
            "drives": [],
        });
        if let Some(initrd) = machine.initrd {
            config["boot-source"]["initrd_path"] = json!(initrd);
        }
        if self.huge_pages && machine.huge_pages {
            config["machine-config"]["huge_pages"] = json!(HUGE_PAGES);
        }
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
        config
    }
}
