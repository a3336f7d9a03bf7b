//! The guest's console on our standard output, and the signs that `guest/shell.sh` gives on it of how far it is.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::input::Input;
use crate::exec::{self, Context, Error, Result};

/// From the start until `guest/shell.sh` runs: 15 s if everything is emulated and nothing else runs.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// From the end of the console's output to the end of the command; they are the same, unless our own output was closed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How a run ended.
pub enum Ended {
    /// By itself: the exit status of the command, and of the guest's shell if it gave one.
    Exited { status: u8, shell: Option<u8> },
    /// The guest did not come up in time, and the command was killed. Nothing of the input was used.
    NotUp,
}

/// A sign from [`super::super::guest`]'s `shell.sh`.
#[derive(Debug, PartialEq, Eq)]
enum Sign {
    Up,
    ShellEnded(u8),
    /// `poweroff` or the like was called: by the shell's user, or by `shell.sh` itself when the shell has ended.
    OnPurpose,
}

/// Runs `command`, which shows the guest's console, with `input`, which is used once the guest is up.
pub fn watch(command: &mut Command, input: &mut Input) -> Result<Ended> {
    if matches!(input, Input::Terminal) {
        // A person sees how it goes, and knows best when to give up.
        let status = command.status().context(exec::show(command))?;
        return Ok(Ended::Exited { status: exit_status(status), shell: Some(0) });
    }
    let stream = matches!(input, Input::Stream(_));
    command.stdin(if stream { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().context(exec::show(command))?);
    let signs = listen(&mut child.0)?;
    let mut shell = None;
    match signs.recv_timeout(BOOT_LIMIT) {
        Err(RecvTimeoutError::Timeout) => return Ok(Ended::NotUp),
        Ok(Sign::Up) => {
            if let (Input::Stream(stream), Some(stdin)) =
                (std::mem::replace(input, Input::Terminal), child.0.stdin.take())
            {
                std::thread::spawn(move || stream.type_into(stdin));
            }
        }
        // Nothing more comes then.
        Ok(_) | Err(RecvTimeoutError::Disconnected) => {}
    }
    for sign in signs {
        match sign {
            Sign::Up => {}
            Sign::ShellEnded(status) => shell = Some(status),
            Sign::OnPurpose => shell = shell.or(Some(0)),
        }
    }
    let status = child.wait(END_LIMIT).context(exec::show(command))?;
    Ok(Ended::Exited { status: exit_status(status), shell })
}

/// Copies the console to standard output, on a thread of its own; the signs end when the console does.
fn listen(child: &mut Child) -> Result<Receiver<Sign>> {
    let console = child.stdout.take().ok_or_else(|| Error::new("the guest's console is not there"))?;
    let (sender, signs) = mpsc::channel();
    // If our own output is closed, so is the pipe, which ends the command.
    std::thread::spawn(move || copy(console, io::stdout(), &sender));
    Ok(signs)
}

fn copy(mut console: impl Read, mut output: impl Write, signs: &Sender<Sign>) -> io::Result<()> {
    let (mut buffer, mut line) = ([0; 4096], Vec::new());
    loop {
        let length = console.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..length])?;
        output.flush()?;
        for &byte in &buffer[..length] {
            if byte != b'\n' {
                line.push(byte);
            } else if let Some(sign) = sign(&String::from_utf8_lossy(&std::mem::take(&mut line))) {
                // The other end may have given up on the guest.
                let _ = signs.send(sign);
            }
        }
    }
}

fn sign(line: &str) -> Option<Sign> {
    let said = line.trim().strip_prefix("vmcell: ")?;
    match said {
        "the guest is up" => Some(Sign::Up),
        "the guest ends on purpose" => Some(Sign::OnPurpose),
        _ => said.strip_prefix("the guest's shell ended with status ")?.parse().ok().map(Sign::ShellEnded),
    }
}

fn exit_status(status: ExitStatus) -> u8 {
    // Ended by a signal: a failure, as in a shell.
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Killed when dropped, if it still runs.
struct Killed(Child);

impl Killed {
    /// Waits for its end; kills it if that does not come in time.
    fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.kill()?;
        self.0.wait()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_read_from_the_console_and_all_of_it_is_copied() {
        let (sender, signs) = mpsc::channel();
        let console = "[ 0.1] boots\r\nvmcell: the guest is up\r\n# vmcell: the guest is up\r\n\
                       vmcell: the guest's shell ended with status 7\r\nvmcell: the guest ends on purpose\r\nlast";
        let mut output = Vec::new();
        copy(console.as_bytes(), &mut output, &sender).unwrap();
        drop(sender);
        assert_eq!(output, console.as_bytes());
        assert_eq!(signs.iter().collect::<Vec<_>>(), [Sign::Up, Sign::ShellEnded(7), Sign::OnPurpose]);
    }
}
