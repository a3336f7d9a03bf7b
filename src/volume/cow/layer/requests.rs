//! What a layer is asked for: reads, writes, and blocks that become zeroes.

use std::io;

use super::super::flush::Asked;
use super::super::map::{RunPlace, parts};
use super::super::operation::{fill_with_zeroes, moved, same};
use super::in_flight::{OnBase, OnTop, Slow};
use super::{Layer, MOST_DIRTY};
use crate::block::{ByteRange, DiskBackend, Done, Operation, Tag};
use crate::event::Io;
use crate::memory::Buffer;

impl<T: DiskBackend, B: DiskBackend> Layer<T, B> {
    /// What comes first of `at..at + len`, and how long that is.
    pub(super) fn first_run(&self, at: u64, len: u64) -> (u64, RunPlace) {
        let run = self.map.first_run(at, len);
        let base = self.header.base_len();
        match run.place {
            RunPlace::Base if at >= base => (run.len, RunPlace::Zeroes),
            RunPlace::Base => (run.len.min(base.saturating_sub(at)), RunPlace::Base),
            place => (run.len, place),
        }
    }

    pub(super) fn read(&mut self, io: &mut Io, tag: Tag, at: u64, into: Buffer) -> std::result::Result<(), Operation> {
        let len = into.len();
        let (run, place) = self.first_run(at, len);
        if run < len {
            let operation = Operation::Read { at, into };
            self.slow.push_back(Slow { tag, operation, done: 0, piece: 0 });
            return Ok(());
        }
        match place {
            RunPlace::Zeroes => {
                let mut operation = Operation::Read { at, into };
                let result = fill_with_zeroes(&mut operation, 0, len);
                io.charge(len);
                self.ready.push_back(Done::new(tag, operation, result));
                Ok(())
            }
            RunPlace::Base => {
                let own = self.on_base.insert(OnBase::Read { tag });
                let below = Operation::Read { at, into };
                let Ok(own) = own else { return Err(below) };
                let result = self.base.submit(io, own, below);
                result.inspect_err(|_| _ = self.on_base.remove(own))
            }
            RunPlace::Clusters(from) => {
                let own = self.on_top.insert(OnTop::Read { tag, at, epoch: self.epoch });
                let Ok(own) = own else { return Err(Operation::Read { at, into }) };
                let below = Operation::Read { at: self.header.data_at().saturating_add(from), into };
                match self.top.submit(io, own, below) {
                    Ok(()) => {
                        self.reads();
                        Ok(())
                    }
                    Err(below) => {
                        self.on_top.remove(own);
                        Err(moved(below, at))
                    }
                }
            }
        }
    }

    /// A read of clusters was begun.
    pub(super) fn reads(&mut self) {
        let reads = self.reading.entry(self.epoch).or_default();
        *reads = reads.saturating_add(1);
    }

    pub(super) fn has_read(&mut self, epoch: u64) {
        if let Some(reads) = self.reading.get_mut(&epoch) {
            *reads = reads.saturating_sub(1);
            if *reads == 0 {
                self.reading.remove(&epoch);
            }
        }
    }

    pub(super) fn write(
        &mut self,
        io: &mut Io,
        tag: Tag,
        at: u64,
        from: Buffer,
        stable: bool,
    ) -> std::result::Result<(), Operation> {
        let len = from.len();
        let operation = Operation::Write { at, from, stable };
        if let (true, Some(lost)) = (self.map.dirty_pages() >= MOST_DIRTY, &self.lost) {
            let result = Err(same(lost));
            self.ready.push_back(Done::new(tag, operation, result));
            return Ok(());
        }
        if self.map.dirty_pages() >= MOST_DIRTY || self.on_top.is_full() {
            return Err(operation);
        }
        if !self.place(at, len) {
            // What was freed comes back once that is stable.
            let comes_back =
                self.space.has_freed() || self.flush.is_some() || !self.held.is_empty() || !self.punching.is_empty();
            if comes_back && self.lost.is_none() {
                self.begin_flush();
                self.go_on(io);
                self.commit(io);
                return Err(operation);
            }
            let full = io::Error::from(io::ErrorKind::StorageFull);
            self.ready.push_back(Done::new(tag, operation, Err(full)));
            return Ok(());
        }
        self.map.begin_write(at, len);
        let run = self.map.first_written_run(at, len);
        let Some((RunPlace::Clusters(place), true)) = run.map(|run| (run.place, run.len == len)) else {
            self.slow.push_back(Slow { tag, operation, done: 0, piece: 0 });
            return Ok(());
        };
        let own = self.on_top.insert(OnTop::Write { tag, at, len, stable });
        let below = match moved(operation, self.header.data_at().saturating_add(place)) {
            Operation::Write { at, from, .. } => Operation::Write { at, from, stable: false },
            other => other,
        };
        let refused = match own {
            Ok(own) => match self.top.submit(io, own, below) {
                Ok(()) => return Ok(()),
                Err(below) => {
                    self.on_top.remove(own);
                    below
                }
            },
            Err(_) => below,
        };
        let empty = self.map.end_write(at, len, false);
        self.space.put_aside(empty);
        match moved(refused, at) {
            Operation::Write { at, from, .. } => Err(Operation::Write { at, from, stable }),
            other => Err(other),
        }
    }

    /// Gives each cluster of the disk one in the file. Says whether there was room.
    pub(super) fn place(&mut self, at: u64, len: u64) -> bool {
        for (index, ..) in parts(at, len) {
            if self.map.entry(index).cluster == 0 {
                // Those that are free still take space if the host does not get it back.
                match self.space.take(!self.top.info().discard) {
                    Some(cluster) => self.map.place(index, cluster),
                    None => return false,
                }
            }
        }
        true
    }

    /// Blocks are zeroes from now on, which is a change of the map alone.
    pub(super) fn zero(
        &mut self,
        tag: Tag,
        operation: Operation,
        range: ByteRange,
        stable: bool,
    ) -> std::result::Result<(), Operation> {
        if self.map.dirty_pages() >= MOST_DIRTY {
            let Some(lost) = &self.lost else { return Err(operation) };
            let result = Err(same(lost));
            self.ready.push_back(Done::new(tag, operation, result));
            return Ok(());
        }
        let empty = self.map.zero(range.at, range.len);
        self.space.put_aside(empty);
        self.end(Asked { tag, operation }, stable, Ok(()));
        Ok(())
    }
}
