//! The terminal that we were started on. Its settings are put back, even after a program that dies without doing so.

use std::io::{self, IsTerminal};
use std::process::{Command, Stdio};

/// Is there a person at the other end of our standard input?
pub fn is_interactive() -> bool {
    io::stdin().is_terminal()
}

/// The terminal's settings, put back when dropped. Holds nothing if standard input is not a terminal.
pub struct Saved(Option<String>);

impl Saved {
    /// Remembers them.
    pub fn now() -> Self {
        if !is_interactive() {
            return Self(None);
        }
        let output = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output();
        let settings = output.ok().filter(|output| output.status.success());
        Self(settings.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Some(settings) = &self.0 {
            // Without stty there is nothing more to do.
            let _ = Command::new("stty").arg(settings).status();
        }
    }
}
