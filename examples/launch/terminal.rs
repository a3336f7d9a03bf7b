//! The terminal in raw mode for as long as the guest has it, and put back however the launcher ends.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A terminal in raw mode. It is put back when this is dropped, and also when the launcher is killed: a small process
/// waits for the end of a pipe that only the launcher holds open.
pub struct RawTerminal {
    keeper: Child,
}

/// `$0` is the mode to go back to, `$1` the terminal.
const KEEPER: &str = r#"cat >/dev/null; exec stty "$0" <"$1""#;

impl RawTerminal {
    /// Makes standard input raw, if it is `wanted` and a terminal that can be put back later.
    pub fn enter(wanted: bool) -> Option<Self> {
        if !wanted || !std::io::stdin().is_terminal() {
            return None;
        }
        let mode = stty(&["-g"])?;
        let keeper = Command::new("setsid")
            .args(["sh", "-c", KEEPER, mode.trim()])
            .arg(terminal_path()?)
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        let terminal = Self { keeper };
        stty(&["raw", "-echo"])?;
        Some(terminal)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn terminal_path() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/fd/0").ok()
}
