//! A client of the API: one request after another, over a Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::exec::{Context, Error, Result};

/// What a program may take to have its socket, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for. A client that never sleeps would take a CPU.
const LOOK: Duration = Duration::from_micros(100);

/// One connection.
pub struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects as soon as there is a socket.
    pub fn wait_for(socket: &Path) -> Result<Self> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(client) = Self::connect(socket) {
                return Ok(client);
            }
            std::thread::sleep(LOOK);
        }
        Self::connect(socket)
    }

    /// Connects.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context(socket.display())?;
        stream.set_read_timeout(Some(PATIENCE)).context("the API's socket")?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Has something done.
    pub fn put(&mut self, path: &str, body: &str) -> Result<()> {
        let length = body.len();
        self.ask(&format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    /// Reads something, and throws it away.
    pub fn get(&mut self, path: &str) -> Result<()> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn ask(&mut self, request: &str) -> Result<()> {
        let what = || request.lines().next().unwrap_or_default().to_owned();
        self.0.get_mut().write_all(request.as_bytes()).context(what())?;
        let (status, body) = self.answer().context(what())?;
        if status.starts_with("HTTP/1.1 20") {
            return Ok(());
        }
        Err(Error::new(format!("{}: {status}: {}", what(), String::from_utf8_lossy(&body))))
    }

    /// Its first line, and its body.
    fn answer(&mut self) -> std::io::Result<(String, Vec<u8>)> {
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.parse().unwrap_or(0);
            }
            if status.is_empty() {
                line.clone_into(&mut status);
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::net::UnixListener;

    #[test]
    fn answers_are_taken_one_after_another_and_a_fault_is_quoted() {
        let scratch = Scratch::new(&std::env::temp_dir(), "bench-api").unwrap();
        let socket = scratch.path().join("api");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for answer in
                ["200 \r\nContent-Length: 2\r\n\r\n{}", "204 \r\n\r\n", "400 Bad\r\ncontent-length: 3\r\n\r\nwhy"]
            {
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
            }
        });
        let mut client = Client::wait_for(&socket).unwrap();
        client.get("/version").unwrap();
        client.put("/vm", "{}").unwrap();
        let error = client.get("/none").unwrap_err().to_string();
        assert!(error.contains("GET /none") && error.contains("400 Bad: why"), "{error}");
        server.join().unwrap();
        assert!(Client::connect(&scratch.path().join("none")).is_err());
    }
}
