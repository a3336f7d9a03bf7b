//! One monitor with one guest: from its start over the guest's words to its end.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::exec::{self, Context, Error, Result};

/// What the guest sends first.
const FIRST_BYTE: u8 = 2;
/// How long a monitor may take to end.
const END: Duration = Duration::from_secs(5);

/// A monitor that runs, killed when dropped.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    pieces: Receiver<(Instant, Vec<u8>)>,
    started: Instant,
    first_byte: Option<Duration>,
    /// What was received and is not yet a line that was asked for.
    text: Vec<u8>,
    errors: std::path::PathBuf,
    shown: String,
}

impl Session {
    /// Starts it; what it writes to standard error goes into the file `errors`.
    pub fn start(command: &mut Command, errors: std::path::PathBuf) -> Result<Self> {
        let file = File::create(&errors).context(errors.display())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let shown = exec::show(command);
        let started = Instant::now();
        let mut child = command.spawn().context(format_args!("cannot start {shown}"))?;
        let (sender, pieces) = channel();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // It ends with the pipe, so with the monitor.
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            let mut stdout = stdout;
            while let Some(Ok(len @ 1..)) = stdout.as_mut().map(|stdout| stdout.read(&mut room)) {
                if sender.send((Instant::now(), room[..len].to_vec())).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, pieces, started, first_byte: None, text: Vec::new(), errors, shown })
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins with `word`, and returns the rest of it. A line of failure is an error.
    pub fn expect(&mut self, word: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            while let Some(line) = self.line() {
                if let Some(rest) = line.strip_prefix(word) {
                    return Ok(rest.trim().into());
                }
                if let Some(why) = line.strip_prefix("fail ") {
                    return Err(Error::new(format!("the guest failed: {why}")));
                }
            }
            self.more(end).map_err(|why| self.broken(&format!("{why} before the guest said `{word}`")))?;
        }
    }

    /// Waits for the guest's first byte; returns how long it took from the monitor's start.
    pub fn expect_first_byte(&mut self, limit: Duration) -> Result<Duration> {
        let end = Instant::now() + limit;
        loop {
            if let Some(took) = self.first_byte {
                return Ok(took);
            }
            self.more(end).map_err(|why| self.broken(&format!("{why} before the guest's first byte")))?;
        }
    }

    /// Types `byte`.
    pub fn send(&mut self, byte: u8) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Error::new("the monitor has no standard input"))?;
        stdin.write_all(&[byte]).and_then(|()| stdin.flush()).context("the monitor's standard input")
    }

    /// Has the guest end; a monitor that stays is killed when this is dropped.
    pub fn end(mut self) -> Result<()> {
        // It may have ended already.
        let _ = self.send(b'x');
        let end = Instant::now() + END;
        while Instant::now() < end {
            if self.child.try_wait().context("the monitor")?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(self.broken("the monitor did not end with its guest"))
    }

    fn more(&mut self, end: Instant) -> std::result::Result<(), &'static str> {
        match self.pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((when, bytes)) => {
                if self.first_byte.is_none() && bytes.contains(&FIRST_BYTE) {
                    self.first_byte = Some(when - self.started);
                }
                self.text.extend(bytes.into_iter().filter(|byte| !matches!(*byte, FIRST_BYTE | b'\r')));
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Err("it took too long"),
            Err(RecvTimeoutError::Disconnected) => Err("the monitor ended"),
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.text.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.text.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().into())
    }

    fn broken(&self, what: &str) -> Error {
        let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        Error::new(format!("{what}; on standard error: {first}\nby {}", self.shown))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str, scratch: &Scratch) -> Session {
        Session::start(Command::new("sh").args(["-c", script]), scratch.path().join("errors")).unwrap()
    }

    #[test]
    fn words_and_the_first_byte_are_found_among_others() {
        let scratch = Scratch::new(&std::env::temp_dir(), "bench-session").unwrap();
        let mut session = shell(r"printf 'log\n\002begin\r\nend done=7\n'; head -c 1 >/dev/null", &scratch);
        assert_eq!(session.expect("begin", SOON).unwrap(), "");
        assert!(session.expect_first_byte(SOON).is_ok());
        assert_eq!(session.expect("end", SOON).unwrap(), "done=7");
        session.end().unwrap();
    }

    #[test]
    fn a_monitor_that_ends_early_is_quoted() {
        let scratch = Scratch::new(&std::env::temp_dir(), "bench-session-early").unwrap();
        let error = shell("echo no such option >&2; exit 2", &scratch).expect("begin", SOON).unwrap_err().to_string();
        assert!(error.contains("no such option") && error.contains("begin"), "{error}");
    }
}
