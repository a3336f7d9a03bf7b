//! Input for the guest's shell, from the person or the program that called `cargo xtask run`.

use std::io::{self, Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::terminal;

/// How long to wait for an end of standard input; a file, a here-document or /dev/null ends at once.
const SETTLE: Duration = Duration::from_secs(2);

/// The source of the input.
pub enum Input {
    /// A terminal, which the guest gets as it is.
    Terminal,
    /// Standard input ended: everything that it held. It goes into the initrd, where no byte of it can be lost.
    Script(Vec<u8>),
    /// Standard input is still open: the bytes so far, and those to come. They are typed in when the guest's shell
    /// waits for them.
    Stream(Stream),
}

/// See [`Input::Stream`].
pub struct Stream {
    head: Vec<u8>,
    rest: Receiver<Vec<u8>>,
}

impl Input {
    /// Looks at standard input.
    pub fn open() -> Self {
        if terminal::is_interactive() {
            return Self::Terminal;
        }
        let (sender, rest) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error ends the input like its end does; a receiver that is gone is no error.
            while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        settle(rest, SETTLE)
    }

    /// The line that is printed about it.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Terminal => "the guest's console is this terminal, Ctrl-C included; to leave: poweroff",
            Self::Script(_) => "standard input ended: the guest's shell runs its content, then the guest powers off",
            Self::Stream(_) => "standard input is not a terminal: it is typed into the guest's shell until it ends",
        }
    }
}

fn settle(rest: Receiver<Vec<u8>>, limit: Duration) -> Input {
    let (deadline, mut head) = (Instant::now() + limit, Vec::new());
    loop {
        match rest.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => head.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => return Input::Script(head),
            Err(RecvTimeoutError::Timeout) => return Input::Stream(Stream { head, rest }),
        }
    }
}

impl Stream {
    /// Types all of it, and at its end `exit`, which ends the shell.
    pub fn type_into(self, mut console: ChildStdin) {
        let typed = |console: &mut ChildStdin, bytes: &[u8]| console.write_all(bytes).and_then(|()| console.flush());
        let mut last = self.head.last().copied();
        let mut result = typed(&mut console, &self.head);
        for bytes in self.rest {
            last = bytes.last().copied().or(last);
            result = result.and_then(|()| typed(&mut console, &bytes));
        }
        let end: &[u8] = if matches!(last, None | Some(b'\n')) { b"exit\n" } else { b"\nexit\n" };
        // A guest that has ended reads nothing more, and nobody is left to tell.
        let _ = result.and_then(|()| typed(&mut console, end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_ended_is_a_script() {
        let (sender, rest) = mpsc::channel();
        sender.send(b"uname".to_vec()).unwrap();
        sender.send(b" -a\n".to_vec()).unwrap();
        drop(sender);
        assert!(matches!(settle(rest, Duration::from_secs(60)), Input::Script(all) if all == b"uname -a\n"));
    }

    #[test]
    fn input_that_stays_open_is_a_stream() {
        let (sender, rest) = mpsc::channel();
        sender.send(b"a".to_vec()).unwrap();
        let input = settle(rest, Duration::ZERO);
        assert!(matches!(input, Input::Stream(_)));
        assert!(sender.send(b"b".to_vec()).is_ok());
    }
}
