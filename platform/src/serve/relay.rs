//! Bytes between two sockets, both ways.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Carries bytes until both sides have ended. Each end is passed on.
pub fn relay(one: &UnixStream, other: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| carry(one, other));
        carry(other, one);
    });
}

fn carry(mut from: &UnixStream, mut to: &UnixStream) {
    if io::copy(&mut from, &mut to).is_err() {
        // Whoever still sends is told that nobody reads.
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(Shutdown::Write);
}
