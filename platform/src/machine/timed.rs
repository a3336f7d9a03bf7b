//! A stream on which all that is said has to be over by a moment, so that a guest cannot draw it out byte by byte.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Reads and writes up to a moment, and fails with [`io::ErrorKind::TimedOut`] after it.
pub struct Timed<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl<'a> Timed<'a> {
    /// From now on for so long. The stream's own limits are changed by what is read and written here.
    pub fn new(stream: &'a UnixStream, limit: Duration) -> Self {
        let now = Instant::now();
        // A limit that no clock can hold is none that anybody set: a day is long enough.
        let end = now.checked_add(limit).or_else(|| now.checked_add(Duration::from_hours(24))).unwrap_or(now);
        Self { stream, end }
    }

    /// What is left, which is not nothing.
    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buf).map_err(late)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buf).map_err(late)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the host's kernel says of a stream whose time is over.
fn late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_drip_do_not_draw_a_message_out() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let dripping = std::thread::spawn(move || {
            // Each byte comes well within the limit.
            while theirs.write_all(b"\x01").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        let error = Timed::new(&ours, Duration::from_millis(200)).read_exact(&mut [0; 10_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((Duration::from_millis(190)..Duration::from_secs(60)).contains(&began.elapsed()));
        drop(ours);
        dripping.join().unwrap();
    }

    #[test]
    fn a_write_that_nobody_reads_ends() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Timed::new(&ours, Duration::from_millis(100)).write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
