//! The socket that clients connect to.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::connection::Connection;
use crate::fault::Fault;
use crate::http::{Request, Response};

/// The most connections.
const MOST: usize = 256;
/// The most new ones a turn.
const MOST_NEW: usize = 16;
/// How long none is let in after the host gave no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);
/// One that was silent for so long makes room for another.
const IDLE: Duration = Duration::from_secs(1);

/// The socket, which is removed at the end if it is still this one, and its connections.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Which file the socket is.
    place: Option<(u64, u64)>,
    connections: Vec<Connection>,
    most_body: usize,
    /// Until when none is let in.
    closed_until: Option<Instant>,
}

impl Server {
    /// Makes the socket, for requests with bodies of at most so many bytes.
    ///
    /// # Errors
    /// What the host reports: there must be nothing at the path.
    pub fn bind(path: &Path, most_body: usize) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let place = place_of(path);
        Ok(Self { listener, path: path.to_owned(), place, connections: Vec::new(), most_body, closed_until: None })
    }

    /// The same socket, by another path that leads to it from now on.
    #[must_use]
    pub fn found_at(mut self, path: PathBuf) -> Self {
        self.path = path;
        self
    }

    /// Adds what is waited for; [`turn`](Self::turn) is told of it in the same order.
    pub fn interests<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        let new = if self.closed_until.is_some() { PollFlags::empty() } else { PollFlags::IN };
        polled.push(PollFd::new(&self.listener, new));
        polled.extend(self.connections.iter().map(|connection| {
            let (stream, flags) = connection.interest();
            PollFd::new(stream, flags)
        }));
    }

    /// When it wants a turn at the latest.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.connections.iter().any(Connection::has_more) {
            return Some(now);
        }
        self.connections.iter().filter_map(Connection::deadline).chain(self.closed_until).min()
    }

    /// Gives each connection a turn, and lets new ones in.
    pub fn turn(&mut self, ready: &[bool], now: Instant, serve: &mut dyn FnMut(Request) -> Response) {
        let (new, ready) = ready.split_first().map_or((false, ready), |(new, ready)| (*new, ready));
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.turn(ready.get(index).copied().unwrap_or(false), now, self.most_body, serve);
        }
        self.connections.retain(|connection| !connection.is_gone());
        self.closed_until = self.closed_until.filter(|until| now < *until);
        if new {
            (0..MOST_NEW).take_while(|_| self.let_in(now)).count();
        }
    }

    /// Tells clients what they have been answered, as far as they take it at once.
    pub fn flush(&mut self, now: Instant) {
        let nothing = &mut |_| Fault::busy("The microVM has ended.").response();
        let waiting = |connection: &&mut Connection| connection.interest().1 == PollFlags::OUT;
        for connection in self.connections.iter_mut().filter(waiting) {
            connection.turn(true, now, self.most_body, nothing);
        }
    }

    /// Whether a client has not taken all of its answer.
    pub fn has_to_tell(&self) -> bool {
        self.connections.iter().any(|connection| connection.interest().1 == PollFlags::OUT && !connection.is_gone())
    }

    /// Says whether there may be another one.
    fn let_in(&mut self, now: Instant) -> bool {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(why) => {
                let is_for_later = why.kind() == io::ErrorKind::WouldBlock;
                self.closed_until = now.checked_add(PAUSE).filter(|_| !is_for_later);
                return false;
            }
        };
        let Ok(mut connection) = Connection::new(stream, now) else { return true };
        if self.connections.len() >= MOST && !self.make_room(now) {
            connection.refuse(&Fault::busy(format!("Too many open connections, allowed are {MOST}.")), now);
            return true;
        }
        self.connections.push(connection);
        true
    }

    fn make_room(&mut self, now: Instant) -> bool {
        let idle = self.connections.iter().enumerate().filter_map(|(at, one)| Some((one.idle_since()?, at)));
        match idle.min() {
            Some((since, at)) if now.saturating_duration_since(since) >= IDLE => {
                self.connections.swap_remove(at);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.place.is_some() && place_of(&self.path) == self.place {
            // Whoever it hinders will say so.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn place_of(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
#[path = "listener_test.rs"]
mod tests;
