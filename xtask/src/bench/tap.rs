//! The TAP that every contender has as its network card, with nothing behind it.

use std::path::PathBuf;
use std::process::Command;

use crate::exec::{self, Context, Result};

/// Room for the frames that are put into its queue.
const QUEUE: &str = "32768";

/// A TAP, removed when dropped.
pub struct Tap(String);

impl Tap {
    /// Makes it; we are root.
    pub fn make() -> Result<Self> {
        let tap = Self(format!("vmb{}", std::process::id()));
        ip(&["tuntap", "add", "dev", tap.name(), "mode", "tap"])?;
        // Nothing of the host's own goes into the queue.
        let ipv6 = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", tap.name());
        if std::path::Path::new(&ipv6).exists() {
            std::fs::write(&ipv6, "1").context(ipv6)?;
        }
        ip(&["link", "set", "dev", tap.name(), "txqueuelen", QUEUE, "up"])?;
        Ok(tap)
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// How many frames have come from the guest so far.
    pub fn frames_from_guest(&self) -> Result<u64> {
        let path: PathBuf = ["/sys/class/net", self.name(), "statistics/rx_packets"].iter().collect();
        let text = std::fs::read_to_string(&path).context(path.display())?;
        text.trim().parse().context(path.display())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next name is another.
        let _ = ip(&["link", "delete", "dev", self.name()]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    exec::capture(Command::new("ip").args(words)).map(drop)
}
