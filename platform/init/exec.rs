use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use vmcell_platform::guest::{Exec, MOST_PIECE, Message, Size};
use vsock::VsockStream;

use crate::processes::{Processes, Started};
use crate::program::Program;

/// What children of a command that has ended still write is passed on for so long.
const AFTER: Duration = Duration::from_secs(1);
/// What a terminal takes for the end of the input: Ctrl-D.
const END: u8 = 4;

/// Where the output goes; nothing after the end.
type Output = Arc<Mutex<Option<VsockStream>>>;

/// Which message has a piece of an output.
type Kind = fn(Vec<u8>) -> Message;

/// The streams of a command.
struct Streams {
    input: Option<Box<dyn Write + Send>>,
    outputs: Vec<(Box<dyn Read + Send>, Kind)>,
    terminal: Option<OwnedFd>,
}

/// Runs what the host asks for, beside `main`, whose user, folder and environment it has.
pub fn serve(mut host: VsockStream, main: &Program, processes: &Arc<Processes>) {
    let started = match Message::read(&mut host) {
        Ok(Some(Message::Exec(exec))) => begin(&exec, main, processes),
        Ok(None) => return,
        Ok(Some(_)) => Err("this port takes a command to run".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match started {
        Ok((started, streams)) => run(host, started, streams, processes),
        Err(why) => drop(Message::Failed(why).write(&mut host)),
    }
}

fn begin(exec: &Exec, main: &Program, processes: &Processes) -> Result<(Started, Streams), String> {
    if exec.command.is_empty() {
        return Err("there is no command to run".to_owned());
    }
    let mut env = main.env.clone();
    env.extend(exec.env.clone());
    let program = Program {
        command: exec.command.clone(),
        env,
        working_dir: exec.working_dir.clone().or_else(|| main.working_dir.clone()),
        user: exec.user.clone().or_else(|| main.user.clone()),
        has_terminal: exec.terminal.is_some(),
    };
    let begun = match exec.terminal {
        Some(size) => in_terminal(&program, size, processes),
        None => plain(&program, processes),
    };
    begun.map_err(|error| format!("cannot start a program: {error}"))
}

fn plain(program: &Program, processes: &Processes) -> io::Result<(Started, Streams)> {
    let mut command = program.command();
    let mut started = processes.start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let child = &mut started.child;
    let mut outputs: Vec<(Box<dyn Read + Send>, Kind)> = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        outputs.push((Box::new(stdout), Message::Output));
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push((Box::new(stderr), Message::ErrorOutput));
    }
    let input = child.stdin.take().map(|stdin| Box::new(stdin) as Box<dyn Write + Send>);
    Ok((started, Streams { input, outputs, terminal: None }))
}

fn in_terminal(program: &Program, size: Size, processes: &Processes) -> io::Result<(Started, Streams)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&ours)?;
    resize(&ours, size);
    let theirs = open(ptsname(&ours, Vec::new())?, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut command = program.command();
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
    let started = processes.start(&mut command)?;
    let (input, output) = (File::from(ours.try_clone()?), File::from(ours.try_clone()?));
    Ok((
        started,
        Streams {
            input: Some(Box::new(input)),
            outputs: vec![(Box::new(output), Message::Output)],
            terminal: Some(ours),
        },
    ))
}

fn run(host: VsockStream, started: Started, streams: Streams, processes: &Arc<Processes>) {
    let Ok(incoming) = host.try_clone() else { return processes.kill(started.pid) };
    let output: Output = Arc::new(Mutex::new(Some(host)));
    let (closed, all_closed) = channel::<()>();
    for (stream, kind) in streams.outputs {
        let (output, closed) = (Arc::clone(&output), closed.clone());
        std::thread::spawn(move || {
            pass(stream, kind, &output);
            drop(closed);
        });
    }
    drop(closed);
    let (pid, of) = (started.pid, Arc::clone(processes));
    std::thread::spawn(move || hear(incoming, streams.input, streams.terminal, pid, &of));
    let Ok(ended) = started.ended.recv() else { return };
    wait(&all_closed);
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut host) = output.take() {
        let _ = Message::Ended(ended).write(&mut host);
        // The thread that hears has the same connection, and ends by this.
        let _ = host.shutdown(std::net::Shutdown::Write);
    }
}

/// Until all outputs are closed, at most a moment.
fn wait(all_closed: &Receiver<()>) {
    // Nothing is ever sent.
    let _ = all_closed.recv_timeout(AFTER);
}

fn pass(mut stream: Box<dyn Read + Send>, kind: Kind, output: &Output) {
    let mut piece = vec![0; MOST_PIECE];
    // A terminal that nobody has open any more fails to be read.
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        let message = kind(piece.get(..read).unwrap_or_default().to_vec());
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(host) = output.as_mut() else { return };
        if message.write(host).is_err() {
            return;
        }
    }
}

/// Does what the host says, and kills the command when it is gone.
fn hear(
    mut host: VsockStream,
    mut input: Option<Box<dyn Write + Send>>,
    terminal: Option<OwnedFd>,
    pid: Pid,
    processes: &Processes,
) {
    while let Ok(Some(message)) = Message::read(&mut host) {
        match message {
            // A command need not read its input.
            Message::Input(bytes) => {
                if input.as_mut().is_some_and(|input| input.write_all(&bytes).is_err()) {
                    input = None;
                }
            }
            Message::InputEnd if terminal.is_some() => drop(input.as_mut().map(|input| input.write_all(&[END]))),
            Message::InputEnd => input = None,
            Message::Resize(size) => drop(terminal.as_ref().map(|terminal| resize(terminal, size))),
            Message::Signal(number) => drop(processes.signal(pid, number)),
            _ => break,
        }
    }
    processes.kill(pid);
}

fn resize(terminal: impl AsFd, size: Size) {
    // A size that the kernel refuses leaves the one before.
    let _ = tcsetwinsize(terminal, Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 });
}
