//! What lives on an I/O thread.

use super::io::Io;
use super::token::Event;
use super::wants::Wants;
use crate::error::Result;

/// Lives on an I/O thread, which owns it and alone calls it.
pub(crate) trait Participant: Send {
    /// The first call: makes tokens and wakers. If it is refused, the participant is dropped.
    fn attach(&mut self, io: &mut Io) -> Result<()>;

    /// One turn, with all that happened since the last one. There is one soon after attaching, too. Ends soon after
    /// [`Io::spent`] says so. A panic ends the participant.
    fn turn(&mut self, io: &mut Io, events: &[Event]);

    /// What it waits for until the next turn.
    fn wants(&self, wants: &mut Wants);

    /// Whether there is something to do that nobody rings for, since the thread is awake. Costs no system call. If so, it has a turn
    /// soon.
    fn has_work(&mut self) -> bool {
        false
    }

    /// The thread looks no longer for something to do: from now on it must be rung for. Says whether there is something already.
    fn rest(&mut self) -> bool {
        false
    }

    /// The kernel does not watch what it wants, a regular file for instance. Says whether it goes on, in another turn;
    /// otherwise, it is dropped.
    fn refused(&mut self, _io: &mut Io) -> bool {
        false
    }
}
