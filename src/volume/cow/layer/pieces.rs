//! Operations whose data lie in several places, carried out piece by piece.

use std::io;

use super::super::flush::Asked;
use super::super::map::RunPlace;
use super::super::operation::{fill_with_zeroes, host_buffer};
use super::Layer;
use super::in_flight::{OnBase, OnTop, Slow};
use crate::block::{DiskBackend, Operation};
use crate::event::Io;
use crate::memory::Buffer;

impl<T: DiskBackend, B: DiskBackend> Layer<T, B> {
    /// The next piece of the first of those that are carried out piece by piece. Says whether there may be another one at once.
    pub(super) fn go_on_with_slow(&mut self, io: &mut Io) -> bool {
        if self.buffer.is_none() {
            return false;
        }
        let Some(front) = self.slow.front() else { return false };
        let (from, left) = (front.at().saturating_add(front.done), front.len().saturating_sub(front.done));
        let is_read = matches!(front.operation, Operation::Read { .. });
        let (len, place) = if is_read {
            self.first_run(from, left)
        } else {
            let run = self.map.first_written_run(from, left);
            run.map_or((left, RunPlace::Zeroes), |run| (run.len, run.place))
        };
        if is_read && place == RunPlace::Zeroes {
            let Some(front) = self.slow.front_mut() else { return false };
            let result = fill_with_zeroes(&mut front.operation, front.done, len);
            front.piece = len;
            io.charge(len);
            self.end_piece(result);
            return true;
        }
        let (Some(front), Some(mut buffer)) = (self.slow.front_mut(), self.buffer.take()) else { return false };
        front.piece = len.min(buffer.capacity() as u64);
        buffer.resize(usize::try_from(front.piece).unwrap_or_default());
        let below = match (&front.operation, place) {
            (Operation::Write { from, .. }, RunPlace::Clusters(place)) => {
                if let Err(e) = from.copy_out(front.done, &mut buffer) {
                    self.buffer = Some(buffer);
                    self.end_piece(Err(io::Error::other(e)));
                    return true;
                }
                io.charge(front.piece);
                let at = self.header.data_at().saturating_add(place);
                Operation::Write { at, from: Buffer::Host(buffer), stable: false }
            }
            (_, RunPlace::Clusters(place)) => {
                let at = self.header.data_at().saturating_add(place);
                Operation::Read { at, into: Buffer::Host(buffer) }
            }
            (Operation::Read { .. }, _) => {
                let below = Operation::Read { at: from, into: Buffer::Host(buffer) };
                self.read_piece_of_base(io, below);
                return false;
            }
            _ => {
                self.buffer = Some(buffer);
                self.end_piece(Err(io::Error::other("a cluster is missing")));
                return true;
            }
        };
        let refused = match self.on_top.insert(OnTop::Piece(is_read.then_some(self.epoch))) {
            Ok(own) => self.top.submit(io, own, below).inspect_err(|_| _ = self.on_top.remove(own)),
            Err(_) => Err(below),
        };
        if is_read && refused.is_ok() {
            self.reads();
        }
        self.buffer = refused.err().and_then(host_buffer);
        false
    }

    pub(super) fn read_piece_of_base(&mut self, io: &mut Io, below: Operation) {
        let refused = match self.on_base.insert(OnBase::Piece) {
            Ok(own) => self.base.submit(io, own, below).inspect_err(|_| _ = self.on_base.remove(own)),
            Err(_) => Err(below),
        };
        self.buffer = refused.err().and_then(host_buffer);
    }

    /// A piece is done below: what was read goes to the caller.
    pub(super) fn piece_done(&mut self, io: &mut Io, below: Operation, mut result: io::Result<()>) {
        let is_read = matches!(below, Operation::Read { .. });
        let buffer = host_buffer(below);
        if let (Some(front), Some(buffer), true, true) = (self.slow.front_mut(), &buffer, is_read, result.is_ok())
            && let Operation::Read { into, .. } = &mut front.operation
        {
            io.charge(front.piece);
            result = into.copy_in(front.done, buffer).map_err(io::Error::other);
        }
        self.buffer = buffer;
        self.end_piece(result);
    }

    pub(super) fn end_piece(&mut self, result: io::Result<()>) {
        let Some(front) = self.slow.front_mut() else { return };
        front.done = front.done.saturating_add(std::mem::take(&mut front.piece));
        if result.is_ok() && front.done < front.len() {
            return;
        }
        let Some(slow) = self.slow.pop_front() else { return };
        self.end_slow(slow, result);
    }

    pub(super) fn end_slow(&mut self, slow: Slow, result: io::Result<()>) {
        let (at, len) = (slow.at(), slow.len());
        let stable = match slow.operation {
            Operation::Write { stable, .. } => {
                let empty = self.map.end_write(at, len, result.is_ok());
                self.space.put_aside(empty);
                stable
            }
            _ => false,
        };
        self.end(Asked { tag: slow.tag, operation: slow.operation }, stable, result);
    }
}
