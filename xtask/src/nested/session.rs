//! One start of the nested host, and the conversation with its agent: `run ID LIMIT BINARY NAME` goes there, output and
//! `@vmcell end ID CODE` come back. Both sides keep time limits: the agent's is for a test that hangs, ours for a host
//! that does.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::marker::{Line, Splitter};
use super::qemu::{Machine, Serial};
use super::queue::Job;
use crate::exec::{self, Context, Result};

/// From QEMU's start until the agent is ready; about 10 s if nothing else runs.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// The agent says something every two seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);
/// For the agent to end a test that is over its time and to report it.
const GRACE: Duration = Duration::from_secs(60);
/// A nested host that is up.
pub struct Session {
    qemu: Child,
    stdin: ChildStdin,
    messages: Receiver<Message>,
}

enum Message {
    /// Bytes came, perhaps no more than a heartbeat.
    Alive,
    Line(Line),
}

/// How a test in it ended.
pub enum Ended {
    /// By itself, with this exit status.
    Exited(i32),
    /// It ran over its time and was ended; nobody knows what it left behind, so the session is of no more use.
    Late,
    /// The host hung or ended.
    Lost(String),
}

impl Session {
    /// Starts a nested host and waits until it is up; an `Err` inside says why it is not.
    pub fn start(machine: &Machine<'_>) -> Result<std::result::Result<Self, String>> {
        let mut command = machine.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(match machine.serial {
            Serial::Pipes { .. } => Stdio::null(),
            Serial::Terminal { .. } => Stdio::inherit(),
        });
        let mut qemu = command.spawn().context("cannot start the nested host")?;
        let (Some(stdin), Some(stdout)) = (qemu.stdin.take(), qemu.stdout.take()) else {
            return Ok(Err("QEMU has no pipes".into()));
        };
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || read(stdout, &sender));
        let session = Self { qemu, stdin, messages };
        let started = session.until(Instant::now() + BOOT_LIMIT, BOOT_LIMIT, |line| line == &Line::Ready, &mut |_| {});
        Ok(started.map(|_| session))
    }

    /// Runs one test, for at most `limit`, and appends its output to `output`.
    pub fn run(&mut self, job: &Job, limit: Duration, output: &mut String) -> Ended {
        let Job { id, binary, name, .. } = job;
        if let Err(error) = writeln!(self.stdin, "run {id} {} {binary} {name}", limit.as_secs()) {
            return Ended::Lost(format!("the nested host ended ({error})"));
        }
        let is_end = |line: &Line| matches!(line, Line::End { id: ended, .. } if ended == id);
        let began = Instant::now();
        let deadline = began + limit + GRACE;
        match self.until(deadline, SILENCE_LIMIT, is_end, &mut |text| output.push_str(text)) {
            Ok(Line::End { code, .. }) if exec::was_late(code, began.elapsed(), limit) => Ended::Late,
            Ok(Line::End { code, .. }) => Ended::Exited(code),
            Ok(_) => Ended::Lost("the agent was misunderstood".into()),
            Err(why) => Ended::Lost(why),
        }
    }

    /// Lets the nested host power off; ends it at once if it does not.
    pub fn quit(mut self) {
        let _ = writeln!(self.stdin, "quit 0");
        let deadline = Instant::now() + Duration::from_secs(10);
        // It no longer answers, and its end closes the channel.
        let _ = self.until(deadline, Duration::from_secs(10), |_| false, &mut |_| {});
    }

    /// Waits for a line that `is_it` accepts, handing all other output on.
    fn until(
        &self,
        deadline: Instant,
        silence: Duration,
        is_it: impl Fn(&Line) -> bool,
        output: &mut dyn FnMut(&str),
    ) -> std::result::Result<Line, String> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left.min(silence)) {
                Ok(Message::Line(line)) if is_it(&line) => return Ok(line),
                Ok(Message::Line(Line::Output(text))) if !text.is_empty() => output(&format!("{text}\n")),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("the nested host ended".into()),
                Err(RecvTimeoutError::Timeout) if left <= silence => return Err("the nested host hung".into()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the nested host hung (silent for {} s)", silence.as_secs()));
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself; then both fail, which is fine.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn read(mut stdout: ChildStdout, messages: &Sender<Message>) {
    let mut splitter = Splitter::default();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stdout.read(&mut buffer) {
        let lines = splitter.push(&buffer[..length]);
        let all = lines.into_iter().map(Message::Line).chain([Message::Alive]);
        for message in all {
            if messages.send(message).is_err() {
                return;
            }
        }
    }
    // The receiver may be gone; then nobody misses the last words.
    let _ = messages.send(Message::Line(splitter.take()));
}

/// The last lines of a console log, for the report of a loss.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
