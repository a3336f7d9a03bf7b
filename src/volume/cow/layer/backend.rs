//! The layer as a backend of a disk.

use std::io;

use super::super::flush::Asked;
use super::Layer;
use crate::block::{DiskBackend, DiskInfo, DiskStatus, Done, Operation, Tag};
use crate::error::Result;
use crate::event::{Event, Io, Wants};
use crate::meter::Meter;

impl<T: DiskBackend, B: DiskBackend> DiskBackend for Layer<T, B> {
    fn info(&self) -> DiskInfo {
        Self::info_over(&self.header, self.top.info(), Some(self.base.info()))
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        self.base.attach(io)?;
        self.top.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        match operation {
            Operation::Read { at, into } => self.read(io, tag, at, into)?,
            Operation::Write { at, from, stable } => self.write(io, tag, at, from, stable)?,
            Operation::Flush => {
                self.asked.push(Asked { tag, operation });
                self.begin_flush();
            }
            Operation::Discard(range) => self.zero(tag, operation, range, false)?,
            Operation::WriteZeroes { range, stable, .. } => self.zero(tag, operation, range, stable)?,
        }
        self.go_on(io);
        Ok(())
    }

    fn commit(&mut self, io: &mut Io) {
        self.top.commit(io);
        self.base.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        loop {
            if let Some(done) = self.ready.pop_front() {
                return Some(done);
            }
            // In turns, so that neither waits for the other; each once, since below a base may be many more.
            self.base_first = !self.base_first;
            let from_base = if self.base_first { self.base.completed(io) } else { None };
            if let Some(done) = from_base {
                self.base_done(io, done);
            } else if let Some(done) = self.top.completed(io) {
                self.top_done(io, done);
            } else if !self.base_first
                && let Some(done) = self.base.completed(io)
            {
                self.base_done(io, done);
            } else {
                let before = self.below();
                self.go_on(io);
                self.commit(io);
                if self.below() > before && self.ready.is_empty() {
                    // It may be done at once, and then nothing else would say so.
                    continue;
                }
                return self.ready.pop_front();
            }
            self.go_on(io);
            if io.spent() {
                self.commit(io);
                // More may be done below than there is time for now.
                self.is_unfinished = true;
                return self.ready.pop_front();
            }
        }
    }

    fn cancel(&mut self, io: &mut Io) {
        let active = usize::from(self.buffer.is_none());
        while self.slow.len() > active {
            let Some(slow) = self.slow.pop_back() else { break };
            self.end_slow(slow, Err(io::ErrorKind::Interrupted.into()));
        }
        self.top.cancel(io);
        self.base.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.top.refresh(io);
        self.grow(io);
    }

    fn wants(&self, wants: &mut Wants) {
        if self.is_unfinished || !self.ready.is_empty() {
            wants.again();
        }
        if let (Some(due), Some(token), None) = (self.due, self.token, &self.flush) {
            wants.deadline(token, due);
        }
        self.top.wants(wants);
        self.base.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.top.woken(io, event);
        self.base.woken(io, event);
    }

    fn status(&self) -> DiskStatus {
        self.top.status()
    }

    fn metrics(&self, meter: &mut Meter) {
        self.top.metrics(meter);
    }
}
