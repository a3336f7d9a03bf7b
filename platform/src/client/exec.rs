//! `cell exec`: a command in a VM, with its input, output and exit status.

use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::SIGWINCH;
use signal_hook::low_level::pipe;

use super::ask::Connection;
use crate::api::Request;
use crate::fault::{Context, Fault, Result};
use crate::guest::{Exec, MOST_PIECE, Message, Size};

/// Runs a command; returns its exit status.
pub fn exec(state: &Path, request: &Request, command: Vec<String>) -> Result<u8> {
    let mut stream = Connection::open(state, request)?.stream()?;
    let terminal = (stdin().is_terminal() && stdout().is_terminal()).then(size).flatten();
    let exec = Exec { command, terminal, ..Exec::default() };
    Message::Exec(Box::new(exec)).write(&mut stream).context("the VM")?;
    let _raw = terminal.and_then(|_| Raw::enter());
    let writer = Arc::new(Mutex::new(stream.try_clone().context("the VM")?));
    let input = Arc::clone(&writer);
    // Ends with the process: it may wait for a terminal.
    std::thread::spawn(move || send_input(&input));
    if terminal.is_some() {
        std::thread::spawn(move || send_sizes(&writer));
    }
    receive(&mut stream)
}

fn receive(stream: &mut UnixStream) -> Result<u8> {
    loop {
        match Message::read(stream).context("the VM")? {
            Some(Message::Output(bytes)) => {
                stdout().write_all(&bytes).and_then(|()| stdout().flush()).context("output")?
            }
            Some(Message::ErrorOutput(bytes)) => stderr().write_all(&bytes).context("error output")?,
            Some(Message::Ended(ended)) => return Ok(u8::try_from(ended.code() & 0xff).unwrap_or(1)),
            Some(Message::Failed(why)) => return Err(Fault::new(why)),
            Some(_) => return Err(Fault::new("the guest's agent does not keep to the protocol")),
            None => {
                return Err(Fault::new("the VM ended before the command, or its agent or its host did")
                    .next("`cell status` lists the VMs that run."));
            }
        }
    }
}

fn send(writer: &Mutex<UnixStream>, message: &Message) -> bool {
    message.write(&mut *writer.lock().unwrap_or_else(PoisonError::into_inner)).is_ok()
}

fn send_input(writer: &Mutex<UnixStream>) {
    let mut piece = vec![0; MOST_PIECE];
    while let Ok(read @ 1..) = stdin().read(&mut piece) {
        if !send(writer, &Message::Input(piece.get(..read).unwrap_or_default().to_vec())) {
            return;
        }
    }
    send(writer, &Message::InputEnd);
}

fn send_sizes(writer: &Mutex<UnixStream>) {
    let Ok((mut changed, changes)) = UnixStream::pair() else { return };
    if pipe::register(SIGWINCH, changes).is_err() {
        return;
    }
    while let Ok(1..) = changed.read(&mut [0; 16]) {
        if size().is_some_and(|size| !send(writer, &Message::Resize(size))) {
            return;
        }
    }
}

fn size() -> Option<Size> {
    tcgetwinsize(stdout()).ok().map(|size| Size { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal passes keys on as they are until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.before);
    }
}
