//! What changes of a disk while it is used: its size, and what it lies on.

use super::super::backend::{DiskBackend, DiskInfo};
use super::super::changes::Change;
use super::super::job::Pending;
use super::Block;
use crate::error::Result;
use crate::event::Io;
use crate::meter::Meter;
use crate::virtio::{Guarded, Queues};

impl Block {
    /// Takes what the host program has asked for: looks at the size at once, and keeps an exchange for when it can be made.
    pub(super) fn take_changes(&mut self, io: &mut Io) -> Result<()> {
        loop {
            match self.change.take().or_else(|| self.changes.take()) {
                Some(Change::Refresh) if self.backend.is_condemned() => {}
                Some(Change::Refresh) => {
                    let before = self.cutter.info.capacity;
                    self.backend.call(io, |backend, io| backend.refresh(io))?;
                    self.look_at_capacity();
                    if self.cutter.info.capacity != before {
                        io.info_changed();
                    }
                }
                Some(Change::Replace(replacement)) if replacement.is_given_up() => {}
                other => {
                    self.change = other;
                    return Ok(());
                }
            }
        }
    }

    /// Exchanges the backend, once the present one has nothing in flight.
    pub(super) fn apply_change(&mut self, io: &mut Io) -> Result<()> {
        while self.jobs.is_empty()
            && let Some(change) = self.change.take()
        {
            if let Change::Replace(replacement) = change
                && let Some((backend, info, reply)) = replacement.begin()
            {
                let (result, unused) = self.exchange(io, backend, info);
                reply.send(result, unused);
            }
            self.take_changes(io)?;
        }
        Ok(())
    }

    /// Puts another backend in the place of the present one; gives back the one that is not used.
    fn exchange(
        &mut self,
        io: &mut Io,
        mut next: Guarded<dyn DiskBackend>,
        info: DiskInfo,
    ) -> (Result<()>, Guarded<dyn DiskBackend>) {
        // The driver was told of the block size.
        let info = match info.in_blocks_of(self.cutter.info.block_size) {
            Ok(info) => info,
            Err(error) => return (Err(error), next),
        };
        // A panic of the one that comes is no reason to fail for the one that is there.
        if let Err(error) | Ok(Err(error)) = next.call(io, |backend, io| backend.attach(io)) {
            return (Err(error), next);
        }
        self.cutter.info = info;
        self.cut_anew = true;
        self.full = false;
        io.info_changed();
        let unused = std::mem::replace(&mut self.backend, next);
        self.tell_status();
        (Ok(()), unused)
    }

    pub(super) fn tell_status(&self) {
        if let Some(status) = self.backend.look(|backend| backend.status()) {
            let mut meter = Meter::new();
            self.backend.look(|backend| backend.metrics(&mut meter));
            self.changes.set_status(status, meter);
        }
    }

    pub(super) fn look_at_capacity(&mut self) {
        if let Some(info) = self.backend.look(|backend| backend.info()).filter(|info| info.check().is_ok()) {
            self.cut_anew |= info.capacity < self.cutter.info.capacity;
            self.cutter.info.capacity = info.capacity;
        }
    }

    /// Cuts what waits for the disk as it is now; what it has no place for any more fails.
    pub(super) fn cut_anew(&mut self, queues: &mut Queues) {
        if !std::mem::take(&mut self.cut_anew) {
            return;
        }
        for Pending { job, operation } in std::mem::take(&mut self.waiting) {
            self.recycle(operation);
            if let Some(queue) = queues.get(job.queue()) {
                let rest = self.go_on(job, queue);
                self.waiting.extend(rest);
            }
        }
    }
}
