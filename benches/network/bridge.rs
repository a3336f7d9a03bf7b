//! Two TAP devices on a bridge of the kernel's, which only root can make.

use std::process::Command;

use vmcell::Result;

use super::failed;

/// Removed when dropped.
pub struct Bridge {
    name: String,
}

impl Bridge {
    pub fn make() -> Result<Self> {
        let bridge = Self { name: format!("vmn{}", std::process::id()) };
        // It need not look into what is no group's.
        ip(&format!("link add name {} type bridge mcast_snooping 0", bridge.name))?;
        for tap in bridge.taps() {
            ip(&format!("tuntap add dev {tap} mode tap"))?;
            ip(&format!("link set dev {tap} txqueuelen 1000 master {} up", bridge.name))?;
        }
        ip(&format!("link set dev {} up", bridge.name))?;
        Ok(bridge)
    }

    pub fn taps(&self) -> [String; 2] {
        ["a", "b"].map(|end| format!("{}{end}", self.name))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for device in self.taps().iter().chain([&self.name]) {
            // Nothing can be done about a failure, and the next name is another.
            let _ = ip(&format!("link delete dev {device}"));
        }
    }
}

pub fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
