//! Requests that wait for the limits of their disk, or of its group. There is one at most: no other is taken meanwhile.

use super::super::job::Job;
use super::Block;
use crate::error::Result;
use crate::event::Io;
use crate::limit::{LimitGroup, Limiter};
use crate::virtio::Queues;

impl Block {
    /// Has the disk keep to the limits of a group, besides its own.
    pub(in crate::block) fn in_group(mut self, group: &LimitGroup) -> Self {
        self.limiter = Limiter::new(&self.changes.limits, Some(group));
        self
    }

    /// Lets a new request begin if it may, and otherwise keeps it.
    pub(super) fn admit(&mut self, io: &Io, job: Job) -> Option<Job> {
        if self.limiter.is_limited() {
            self.limiter.owe(job.cost());
            self.limited = Some(job);
            return self.take_limited(io);
        }
        self.changes.counters.taken(job.work());
        Some(job)
    }

    /// Takes the request that waits, if it need not any more.
    pub(super) fn take_limited(&mut self, io: &Io) -> Option<Job> {
        if !self.limiter.settle(io.now()) {
            return None;
        }
        self.limiter.done();
        self.limited.take().inspect(|job| self.changes.counters.taken(job.work()))
    }

    pub(super) fn put_limited_back(&mut self, queues: &mut Queues) -> Result<()> {
        let Some(job) = self.limited.take() else { return Ok(()) };
        self.limiter.cancel();
        queues.get(job.queue()).map_or(Ok(()), |queue| queue.put_back(job.into_chain()))
    }
}
