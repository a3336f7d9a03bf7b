//! A connection to `cell serve`.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::api::{Answer, Request, SOCKET, receive, send};
use crate::fault::{Fault, Result};

/// A command that was sent, and its answers.
pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Sends a command.
    ///
    /// # Errors
    /// Nothing serves this folder.
    pub fn open(state: &Path, request: &Request) -> Result<Self> {
        let path = state.join(SOCKET);
        let mut stream = UnixStream::connect(&path).map_err(|error| {
            let next = format!(
                "Start it: `cell serve --state {} --kernel PATH`, or name the folder of one that runs by --state.",
                state.display()
            );
            Fault::new(format!("no cell serve answers at {}: {error}", path.display())).next(next)
        })?;
        send(&mut stream, request)?;
        Ok(Self { stream })
    }

    /// The next answer.
    ///
    /// # Errors
    /// There is none any more.
    pub fn next(&mut self) -> Result<Answer> {
        // Without a buffer, so that the bytes of a stream are not taken.
        let answer = receive(&mut BufReader::with_capacity(1, &self.stream))?;
        answer.ok_or_else(|| {
            Fault::new("cell serve ended before it was done").next("Start it again: it finds what it has begun.")
        })
    }

    /// The stream that follows the last answer.
    ///
    /// # Errors
    /// What was refused.
    pub fn stream(mut self) -> Result<UnixStream> {
        match self.next()? {
            Answer::Stream => Ok(self.stream),
            Answer::Refused(fault) => Err(fault),
            _ => Err(Fault::new("cell serve answered by something else than a stream")),
        }
    }
}
