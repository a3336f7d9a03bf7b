//! What a VM prints, in a file: each line begins with the time.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::net::unix::pipe::Receiver;
use vmcell::{ConsoleReader, Result};

use crate::report::{host, say};

/// A guest prints as much as it likes: a log that is this long is renamed to "NAME.1", which replaces an older one.
const LONGEST: u64 = 16 << 20;

pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// The next byte begins a line.
    is_new_line: bool,
    is_failing: bool,
}

impl Log {
    pub fn open(path: PathBuf) -> Result<Self> {
        let failed = |e| host(format_args!("cannot open {}", path.display()), e);
        let file = File::options().append(true).create(true).open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self { path, file, size, is_new_line: true, is_failing: false })
    }

    /// Writes what comes out of a console until its end.
    pub async fn copy(&mut self, output: ConsoleReader) -> Result<()> {
        let failed = |e| host("cannot read a console", e);
        let output = Receiver::from_owned_fd(OwnedFd::from(output)).map_err(failed)?;
        let mut bytes = vec![0; 16 << 10];
        loop {
            output.readable().await.map_err(failed)?;
            match output.try_read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.write(&bytes[..count]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(failed(e)),
            }
        }
        if !self.is_new_line {
            self.write(b"\n");
        }
        Ok(())
    }

    /// A disk that is full must not end a VM: that is said once, and the bytes are lost.
    fn write(&mut self, bytes: &[u8]) {
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut text = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_new_line {
                text.extend([now.as_bytes(), b" "].concat());
            }
            text.extend(piece);
            self.is_new_line = piece.ends_with(b"\n");
        }
        let written = self.make_room(text.len() as u64).and_then(|()| self.file.write_all(&text));
        if let Err(e) = &written
            && !self.is_failing
        {
            say(&self.path.to_string_lossy(), format_args!("cannot be written: {e}"));
        }
        self.is_failing = written.is_err();
    }

    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        if self.size >= LONGEST {
            let _ = std::fs::rename(&self.path, self.path.with_added_extension("1"));
            (self.file, self.size) = (File::create(&self.path)?, 0);
        }
        self.size += bytes;
        Ok(())
    }
}
