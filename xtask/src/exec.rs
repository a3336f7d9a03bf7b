//! Running other programs, and the one error type of this crate. Nothing here knows the programs' purposes.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A result whose error is a message for the person at the terminal.
pub type Result<T> = std::result::Result<T, Error>;

/// An error in words: nobody matches on it, it is only ever printed.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds what was being done when something else failed.
pub trait Context<T> {
    /// Puts `what` before the cause.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error(format!("{what}: {cause}")))
    }
}

/// Runs `command` with our own standard streams.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context(format_args!("cannot start {}", name(command)))?;
    if status.success() { Ok(()) } else { Err(Error(format!("{} failed: {status}", show(command)))) }
}

/// Runs `command` and returns its standard output; shows its standard error only if it fails.
pub fn capture(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null());
    let output = command.output().context(format_args!("cannot start {}", name(command)))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
    Err(Error(format!("{} failed: {}\n{}", show(command), output.status, said.trim_end())))
}

/// As [`capture`], for programs that write text.
pub fn capture_text(command: &mut Command) -> Result<String> {
    capture(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs `command` with `input` on its standard input, and returns its standard output.
pub fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(format_args!("cannot start {}", name(command)))?;
    let stdin = child.stdin.take();
    // A thread of its own writes the input: both pipes may be full at once.
    let (output, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
        (child.wait_with_output(), writer.join())
    });
    let output = output.context(name(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error(format!("{} failed: {}\n{}", show(command), output.status, said.trim_end())));
    }
    match written {
        Ok(Ok(())) => Ok(output.stdout),
        // A filter may end before its input does.
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(output.stdout),
        Ok(Err(error)) => Err(Error(format!("{}: {error}", show(command)))),
        Err(_) => Err(Error(format!("{}: the writer ended early", show(command)))),
    }
}

/// Does this exit status of `timeout` mean that the program was ended for being late? The status of `timeout` itself is
/// 124; 137 is that of SIGKILL, which `timeout` sends last, but others send too.
pub fn was_late(code: i32, took: Duration, limit: Duration) -> bool {
    code == 124 || (code == 137 && took >= limit)
}

/// Is there a program of this name on PATH?
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Are we root? The owner of our own /proc entry is our effective user.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

/// The command as a line that can be pasted into a shell.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// `word` as a shell reads it back.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quote_leaves_plain_words_and_wraps_others() {
        assert_eq!(quote("/dev/vda,ro"), "/dev/vda,ro");
        assert_eq!(quote("console=ttyS0 panic=-1"), "'console=ttyS0 panic=-1'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_kill_before_the_limit_is_not_for_being_late() {
        let (second, limit) = (Duration::from_secs(1), Duration::from_secs(180));
        assert!(was_late(124, limit, limit) && was_late(137, limit, limit));
        assert!(!was_late(137, second, limit) && !was_late(101, limit, limit));
    }

    #[test]
    fn filter_carries_more_than_a_pipe_holds() {
        let input = vec![7_u8; 1 << 20];
        assert_eq!(filter(&mut Command::new("cat"), &input).unwrap(), input);
    }

    #[test]
    fn a_failure_tells_the_command_and_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("no") && error.contains('3'), "{error}");
    }
}
