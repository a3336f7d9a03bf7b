//! The virtio-block device: each chain from the queue to its status byte.

mod config;
mod exchange;
mod limits;
mod shape;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use config::{QUEUE_SIZE, config_space, feature};
use shape::Shape;

use super::backend::{DiskBackend, DiskInfo, Done, Operation};
use super::changes::{Change, Changes};
use super::job::{Cutter, Job, Pending, Work, len};
use super::request::{Limits, Refusal, Request, Status, parse};
use super::tag::Slab;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Cause, Event, Io, Token, Wants};
use crate::limit::Limiter;
use crate::memory::Buffer;
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, Chain, DeviceInfo, DeviceState, FailureCause, Guarded, Queue, Queues, VirtioDevice};

/// What an operation without data counts in a turn, in bytes.
const BARE_CHARGE: u64 = 4096;
/// What a completion counts in a turn, in bytes.
const DONE_CHARGE: u64 = 512;

pub(crate) struct Block {
    backend: Guarded<dyn DiskBackend>,
    read_only: bool,
    serial: [u8; 20],
    queue_count: u16,
    /// The queue that is looked at first.
    first_queue: u16,
    cutter: Cutter,
    /// Requests of which the backend has an operation.
    jobs: Slab<Job>,
    /// Requests whose next operation is still to be submitted.
    waiting: VecDeque<Pending>,
    /// The backend had no room; nothing is submitted until something happens.
    full: bool,
    changes: Arc<Changes>,
    changes_token: Option<Token>,
    change: Option<Change>,
    /// What waits was cut for a disk that was larger, or another.
    cut_anew: bool,
    limiter: Limiter,
    /// A request that waits for its limits; no other is taken meanwhile.
    limited: Option<Job>,
}

impl Block {
    pub(super) fn new(
        backend: Guarded<dyn DiskBackend>,
        info: DiskInfo,
        read_only: bool,
        serial: &str,
        changes: Arc<Changes>,
        queue_count: u16,
    ) -> Self {
        let mut padded = [0; 20];
        for (to, from) in padded.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        Self {
            backend,
            read_only,
            serial: padded,
            queue_count: queue_count.max(1),
            first_queue: 0,
            cutter: Cutter { info, write_through: false, lists: Vec::new() },
            jobs: Slab::new(QUEUE_SIZE.into()),
            waiting: VecDeque::new(),
            full: false,
            limiter: Limiter::new(&changes.limits, None),
            changes,
            changes_token: None,
            change: None,
            cut_anew: false,
            limited: None,
        }
    }

    fn limits(&self) -> Limits {
        Limits::new(&self.cutter.info, self.read_only)
    }

    /// Moves everything on as far as the turn and the backend allow.
    fn pump(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        loop {
            let done = self.take_completions(io, queues)?;
            self.apply_change(io)?;
            self.cut_anew(queues);
            let begun = self.submit_requests(io, queues)?;
            if begun {
                self.backend.call(io, |backend, io| backend.commit(io))?;
            }
            if !(done || begun) || io.spent() {
                return Ok(());
            }
        }
    }

    fn take_completions(&mut self, io: &mut Io, queues: &mut Queues) -> Result<bool> {
        let mut any = false;
        while !io.spent() {
            let Some(done) = self.backend.call(io, |backend, io| backend.completed(io))? else { break };
            any = true;
            self.full = false;
            io.charge(DONE_CHARGE);
            self.take(done, queues)?;
        }
        Ok(any)
    }

    /// An operation is done: its request goes on, or is.
    fn take(&mut self, done: Done, queues: &mut Queues) -> Result<()> {
        let Done { tag, operation, result, .. } = done;
        let Some(mut job) = self.jobs.remove(tag) else {
            return Err(self.break_rule("it completed an operation that it does not have"));
        };
        if !job.was_given(&operation) {
            return Err(self.break_rule("it completed another operation than it was given"));
        }
        job.advance(&operation);
        let may_decline = matches!(operation, Operation::Discard(_) | Operation::WriteZeroes { .. });
        if result.is_ok() {
            self.changes.counters.moved(&operation);
        }
        self.recycle(operation);
        let Some(queue) = queues.get(job.queue()).filter(|_| !job.is_given_up()) else { return Ok(()) };
        match result {
            Ok(()) => {
                let rest = self.go_on(job, queue);
                self.waiting.extend(rest);
            }
            Err(error) if may_decline && error.kind() == io::ErrorKind::Unsupported => {
                answer(queue, job.into_chain(), Status::Unsupported, 0);
            }
            Err(_) => self.fail(queue, job.into_chain()),
        }
        Ok(())
    }

    fn break_rule(&mut self, how: &str) -> Error {
        self.backend.condemn(FailureCause::BrokeRule, how)
    }

    fn recycle(&mut self, operation: Operation) {
        if let Operation::Read { into: Buffer::Guest(ranges), .. }
        | Operation::Write { from: Buffer::Guest(ranges), .. } = operation
        {
            self.cutter.lists.push(ranges.into_list());
        }
    }

    /// Cuts the next operation of a request, which is then to be submitted, or answers the request if there is none.
    fn go_on(&mut self, mut job: Job, queue: &mut Queue) -> Option<Pending> {
        let next = if job.is_moved() { Ok(None) } else { job.next(&mut self.cutter, queue.lessor()) };
        match next {
            Ok(Some(operation)) => return Some(Pending { job, operation }),
            Ok(None) => {
                let written = job.data_written();
                answer(queue, job.into_chain(), Status::Ok, written);
            }
            Err(_) => self.fail(queue, job.into_chain()),
        }
        None
    }

    /// The storage has failed a request.
    fn fail(&self, queue: &mut Queue, chain: Chain) {
        self.changes.counters.failed();
        answer(queue, chain, Status::IoError, 0);
    }

    fn submit_requests(&mut self, io: &mut Io, queues: &mut Queues) -> Result<bool> {
        let mut any = false;
        while self.may_submit() && !io.spent() {
            let mut next = self.waiting.pop_front();
            if next.is_none() && self.limited.is_some() {
                let Some(job) = self.take_limited(io) else { break };
                next = queues.get(job.queue()).and_then(|queue| self.go_on(job, queue));
            } else if next.is_none() {
                let Some((index, chain)) = self.pop(io, queues)? else { break };
                let Some(queue) = queues.get(index) else { break };
                next = self.begin(io, queue, index, chain);
            }
            if let Some(pending) = next {
                any |= self.submit(io, pending)?;
            }
        }
        Ok(any)
    }

    /// Takes the next chain, of each queue in turn.
    fn pop(&mut self, io: &mut Io, queues: &mut Queues) -> Result<Option<(u16, Chain)>> {
        for _ in 0..self.queue_count {
            let index = self.first_queue;
            self.first_queue = index.saturating_add(1).checked_rem(self.queue_count).unwrap_or(0);
            if let Some(queue) = queues.get(index)
                && let Some(chain) = queue.pop(io)?
            {
                return Ok(Some((index, chain)));
            }
        }
        Ok(None)
    }

    fn may_submit(&self) -> bool {
        !self.full && !self.jobs.is_full() && self.change.is_none()
    }

    fn submit(&mut self, io: &mut Io, pending: Pending) -> Result<bool> {
        let Pending { mut job, operation } = pending;
        let was_begun = job.has_begun();
        job.begin(&operation);
        io.charge(len(&operation).max(BARE_CHARGE));
        let tag = match self.jobs.insert(job) {
            Ok(tag) => tag,
            // It was asked whether there is room.
            Err(_) => return Ok(false),
        };
        let refused = self.backend.call(io, |backend, io| backend.submit(io, tag, operation))?;
        if let Err(operation) = refused
            && let Some(mut job) = self.jobs.remove(tag)
        {
            job.refused(was_begun);
            self.waiting.push_front(Pending { job, operation });
            self.full = true;
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes a new request up, or answers it right away.
    fn begin(&mut self, io: &Io, queue: &mut Queue, index: u16, chain: Chain) -> Option<Pending> {
        let work = match parse(&chain, self.limits()) {
            Ok(Request::Read(range)) => Work::Read(range),
            Ok(Request::Write(range)) => Work::Write(range),
            Ok(Request::Flush) => Work::Flush,
            Ok(Request::Discard(ranges)) => Work::Discard { ranges, position: 0 },
            Ok(Request::WriteZeroes { range, unmap }) => Work::WriteZeroes { range, unmap },
            Ok(Request::Serial(len)) => {
                self.changes.counters.identified();
                self.tell_serial(queue, chain, len);
                return None;
            }
            Err(refusal) => {
                self.changes.counters.refused();
                match refusal {
                    Refusal::Status(status) => answer(queue, chain, status, 0),
                    Refusal::NoStatus => queue.complete(chain, 0),
                }
                return None;
            }
        };
        let job = self.admit(io, Job::new(chain, index, work))?;
        self.go_on(job, queue)
    }

    fn tell_serial(&self, queue: &mut Queue, chain: Chain, len: u32) {
        let bytes = usize::try_from(len).ok().and_then(|len| self.serial.get(..len)).unwrap_or(&self.serial);
        match chain.write(0, bytes) {
            Ok(()) => answer(queue, chain, Status::Ok, len),
            Err(_) => answer(queue, chain, Status::IoError, 0),
        }
    }
}

impl VirtioDevice for Block {
    fn info(&self) -> DeviceInfo {
        let several = if self.queue_count > 1 { 1 << feature::MQ } else { 0 };
        let common = 1 << feature::SEG_MAX | 1 << feature::BLK_SIZE | 1 << feature::FLUSH | several;
        // A backend that comes later may lack them: then they are refused (5.2.6.2).
        let Limits { discard, write_zeroes, .. } = self.limits();
        let offered = |is_offered: bool, feature: u32| u64::from(is_offered) << feature;
        let writing = offered(discard, feature::DISCARD) | offered(write_zeroes, feature::WRITE_ZEROES);
        let own = common | if self.read_only { 1 << feature::RO } else { writing };
        DeviceInfo::new(device_id::BLOCK, &vec![QUEUE_SIZE; self.queue_count.into()]).features(own)
    }

    fn config(&mut self) -> Vec<u8> {
        self.look_at_capacity();
        // Asked for the first time before the backend is attached.
        if self.changes_token.is_some() {
            self.tell_status();
        }
        config_space(&self.cutter.info, self.read_only, self.queue_count)
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.changes_token = Some(token);
        self.changes.set_waker(io.waker(token));
        self.limiter.set_waker(io.waker(token));
        self.backend.call(io, |backend, io| backend.attach(io))??;
        self.tell_status();
        self.backend.check()
    }

    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()> {
        self.cutter.write_through = !activation.has(feature::FLUSH);
        self.full = false;
        self.take_changes(io)?;
        self.backend.check()
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, _index: u16) -> Result<()> {
        self.pump(io, queues)
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        if self.changes_token == Some(event.token) {
            self.limiter.look_again(io.now(), event.cause == Cause::Woken);
            self.take_changes(io)?;
            // One that is gone has nothing in flight, and can be replaced.
            self.apply_change(io)?;
        }
        if self.backend.is_condemned() && !self.backend.has_news() {
            // It was told when that happened.
            return Ok(());
        }
        if self.changes_token != Some(event.token) {
            if event.cause != Cause::Again {
                self.backend.call(io, |backend, io| backend.woken(io, event))?;
            }
            // Another turn that was asked for is one to try again in, too.
            self.full = false;
        }
        self.pump(io, queues)
    }

    fn wants(&self, wants: &mut Wants) {
        self.backend.look(|backend| backend.wants(wants));
        if self.backend.has_news() {
            wants.again();
        }
        if let (Some(token), Some(until)) = (self.changes_token, self.limiter.until()) {
            wants.deadline(token, until);
        }
    }

    fn quiesce(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        self.put_limited_back(queues)?;
        // Of those that have not begun there is one at most, and it was taken last.
        if self.waiting.back().is_some_and(|pending| !pending.job.has_begun())
            && let Some(Pending { job, operation }) = self.waiting.pop_back()
        {
            self.recycle(operation);
            if let Some(queue) = queues.get(job.queue()) {
                queue.put_back(job.into_chain())?;
            }
        }
        self.pump(io, queues)
    }

    fn reset(&mut self, io: &mut Io) {
        self.waiting.clear();
        self.limiter.cancel();
        self.limited = None;
        self.jobs.iter_mut().for_each(Job::give_up);
        let was_gone = self.backend.is_condemned();
        let cancelled = self.backend.call(io, |backend, io| backend.cancel(io));
        if cancelled.and_then(|()| self.pump(io, &mut Queues::default())).is_err() {
            // One that is gone completes nothing: only buffers count that somebody still holds.
            self.jobs.clear();
            if !was_gone {
                self.backend.tell_later();
            }
        }
    }

    fn check_state(&self, state: &DeviceState) -> Result<()> {
        let (saved, own) = (Shape::read(state)?, self.shape());
        match saved {
            Some(saved) if saved != own => {
                let message = format!("the disk has {own}, allowed is one like the one that was saved, with {saved}");
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(self.shape().write())
    }
}

impl Block {
    fn shape(&self) -> Shape {
        let DiskInfo { capacity, block_size, .. } = self.cutter.info;
        Shape { capacity, block_size, read_only: self.read_only }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.changes.end();
    }
}

/// Completes a chain with its status, which is its last byte; `data` bytes of its first ones were written.
fn answer(queue: &mut Queue, chain: Chain, status: Status, data: u32) {
    let last = chain.writable_len().saturating_sub(1);
    // What is claimed as written begins with the first byte (2.7.8.2): the status counts if nothing is missing before it.
    let written = match chain.write(last, &[status as u8]) {
        Ok(()) if data == last => data.saturating_add(1),
        Ok(()) | Err(_) => data,
    };
    queue.complete_later(chain, written);
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
