//! The device: its queues, its config space, and when the guest is asked.

use std::mem;
use std::time::Instant;

use super::handle::BalloonHandle;
use super::pages::Pages;
use super::state::Saved;
use super::statistics::Received;
use super::work::{Bench, Counters, Job};
use super::{PAGE, QUEUES};
use crate::config::BalloonConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Cause, Event, Io, Token, Wants};
use crate::memory::GuestMemory;
use crate::meter::Meter;
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, Chain, DeviceInfo, DeviceState, Queue, Queues, VirtioDevice};

const QUEUE_SIZE: u16 = 128;
const STATISTICS: u16 = 2;
/// There are no hints, and drivers that number their queues without a gap have reports in the place of hints, or of statistics if they
/// have none of these either.
const REPORTS: u16 = 4;

/// Feature bits (5.5.3).
mod feature {
    pub(super) const MUST_TELL_HOST: u32 = 0;
    pub(super) const STATS_VQ: u32 = 1;
    pub(super) const DEFLATE_ON_OOM: u32 = 2;
    pub(super) const REPORTING: u32 = 5;
}

/// Where `actual` stands in the config space (5.5.4).
const ACTUAL: u64 = 4;

pub(crate) struct Balloon {
    deflate_on_oom: bool,
    reporting: bool,
    handle: BalloonHandle,
    counters: Counters,
    token: Option<Token>,
    /// The target as the config space tells it.
    told: u32,
    /// Statistics, or that there are none any more, if the host program could not be told yet.
    unsaid: Option<Option<Received>>,
    /// While there is a driver.
    running: Option<Running>,
}

/// What there is between activation and reset.
struct Running {
    memory: GuestMemory,
    has_statistics: bool,
    has_reports: bool,
    pages: Pages,
    /// Of each queue.
    works: [Work; QUEUES],
    statistics: Statistics,
}

/// The chain that is worked on, or that was put back.
#[derive(Default)]
struct Work {
    chain: Option<Chain>,
    /// How far it has come.
    done: u32,
}

#[derive(Default)]
struct Statistics {
    /// What the driver offered last, kept until it is to offer others.
    chain: Option<Chain>,
    /// The next chain was looked at before.
    seen: bool,
    /// When the driver is asked by itself.
    next: Option<Instant>,
}

impl Balloon {
    /// One for a guest with so many bytes of RAM.
    pub(crate) fn new(config: &BalloonConfig, ram: u64) -> Self {
        let counters = Counters::default();
        let handle = BalloonHandle::new(config, ram, counters.reported().clone());
        let BalloonConfig { deflate_on_oom, reporting, .. } = *config;
        let told = handle.target_pages();
        Self { deflate_on_oom, reporting, handle, counters, token: None, told, unsaid: None, running: None }
    }

    pub(crate) fn handle(&self) -> BalloonHandle {
        self.handle.clone()
    }

    /// Does what the host program wants.
    fn look(&mut self, io: &mut Io, queues: &mut Queues, due: bool) {
        if self.told != self.handle.target_pages() {
            io.info_changed();
        }
        self.say();
        let Some(running) = &mut self.running else { return };
        if self.handle.take_wanted() || due {
            running.statistics.ask(queues);
        }
        running.statistics.plan(&self.handle, due);
    }

    /// Leaves what the host program may want to know.
    fn say(&mut self) {
        if let Some(received) = self.unsaid.take()
            && !self.handle.leave(received.as_ref())
        {
            self.unsaid = Some(received);
        }
    }

    /// What a queue is for.
    fn job(&self, index: u16) -> Option<Job> {
        let running = self.running.as_ref()?;
        // Where reports are if the driver leaves no gap.
        let gapless = STATISTICS.saturating_add(running.has_statistics.into());
        match index {
            0 => Some(Job::Inflate),
            1 => Some(Job::Deflate),
            REPORTS if running.has_reports => Some(Job::Report),
            index if running.has_reports && index == gapless => Some(Job::Report),
            _ => None,
        }
    }

    fn serve(&mut self, io: &mut Io, queue: &mut Queue, index: u16, job: Job) -> Result<()> {
        let Some(Running { memory, pages, works, .. }) = &mut self.running else { return Ok(()) };
        let Some(work) = works.get_mut(usize::from(index)) else { return Ok(()) };
        let mut bench = Bench { memory, pages, counters: &self.counters };
        loop {
            let chain = match work.chain.take() {
                Some(chain) => chain,
                None => match queue.pop(io)? {
                    Some(chain) => chain,
                    None => return Ok(()),
                },
            };
            if !bench.work(io, job, &chain, &mut work.done) {
                work.chain = Some(chain);
                return Ok(());
            }
            work.done = 0;
            queue.complete(chain, 0);
        }
    }

    fn take_statistics(&mut self, io: &mut Io, queue: &mut Queue) -> Result<()> {
        let Some(Running { statistics, .. }) = &mut self.running else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            if chain.readable_len() == 0 {
                queue.complete(chain, 0);
                continue;
            }
            if !mem::take(&mut statistics.seen) {
                self.unsaid = Some(Some(Received::read(io, &chain)));
                self.counters.statistics.add(1);
            }
            // A driver has one there at most (5.5.6.3.1).
            if let Some(older) = statistics.chain.replace(chain) {
                queue.complete(older, 0);
            }
        }
        self.say();
        Ok(())
    }
}

impl Running {
    fn new(activation: &Activation) -> Self {
        let memory = activation.memory.clone();
        let last = memory.regions().last();
        let end = last.and_then(|region| region.start.checked_add(region.len)).map_or(0, |end| end.0);
        Self {
            has_statistics: activation.has(feature::STATS_VQ),
            has_reports: activation.has(feature::REPORTING),
            pages: Pages::new(end.div_ceil(PAGE)),
            works: Default::default(),
            statistics: Statistics::default(),
            memory,
        }
    }
}

impl Statistics {
    /// The driver answers a chain that it gets back by another.
    fn ask(&mut self, queues: &mut Queues) {
        if let (Some(queue), Some(chain)) = (queues.get(STATISTICS), self.chain.take()) {
            queue.complete(chain, 0);
        }
    }

    /// Says when the driver is asked next by itself.
    fn plan(&mut self, handle: &BalloonHandle, due: bool) {
        let Some(interval) = handle.interval() else {
            self.next = None;
            return;
        };
        let in_time = Instant::now().checked_add(interval);
        match self.next {
            Some(next) if !due && in_time.is_none_or(|in_time| next <= in_time) => {}
            _ => self.next = in_time,
        }
    }
}

impl VirtioDevice for Balloon {
    fn info(&self) -> DeviceInfo {
        let offered = [
            (feature::MUST_TELL_HOST, true),
            (feature::STATS_VQ, true),
            (feature::DEFLATE_ON_OOM, self.deflate_on_oom),
            (feature::REPORTING, self.reporting),
        ];
        let features = offered.iter().filter(|(_, offered)| *offered).fold(0, |mask, (bit, _)| mask | 1 << bit);
        DeviceInfo::new(device_id::BALLOON, &[QUEUE_SIZE; QUEUES]).features(features)
    }

    fn config(&mut self) -> Vec<u8> {
        self.told = self.handle.target_pages();
        [self.told, self.handle.actual_pages()].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.handle.set_waker(io.waker(token));
        self.token = Some(token);
        // It may have been changed before there was a waker.
        io.info_changed();
        Ok(())
    }

    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()> {
        let mut running = Running::new(&activation);
        if let Some(state) = &activation.state {
            let (saved, pages) = Saved::read(state, &running.memory, running.pages)?;
            running.pages = pages;
            running.works = saved.done.map(|done| Work { chain: None, done });
            running.statistics.seen = saved.seen;
            self.handle.set_target_pages(saved.target);
            self.handle.set_actual_pages(saved.actual);
            io.info_changed();
        }
        running.statistics.plan(&self.handle, true);
        self.running = Some(running);
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        let has_statistics = self.running.as_ref().is_some_and(|running| running.has_statistics);
        let Some(queue) = queues.get(index) else { return Ok(()) };
        match self.job(index) {
            Some(job) => self.serve(io, queue, index, job),
            None if has_statistics && index == STATISTICS => self.take_statistics(io, queue),
            None => {
                while let Some(chain) = queue.pop(io)? {
                    queue.complete(chain, 0);
                }
                Ok(())
            }
        }
    }

    fn write_config(&mut self, io: &mut Io, offset: u64, data: &[u8]) {
        let mut bytes = self.handle.actual_pages().to_le_bytes();
        for (at, byte) in (offset..).zip(data) {
            let inside = at.checked_sub(ACTUAL).and_then(|at| usize::try_from(at).ok());
            if let Some(place) = inside.and_then(|at| bytes.get_mut(at)) {
                *place = *byte;
            }
        }
        self.handle.set_actual_pages(u32::from_le_bytes(bytes));
        io.info_changed();
    }

    fn wants(&self, wants: &mut Wants) {
        let next = self.running.as_ref().and_then(|running| running.statistics.next);
        if let (Some(token), Some(next)) = (self.token, next) {
            wants.deadline(token, next);
        }
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        if Some(event.token) == self.token {
            self.look(io, queues, event.cause == Cause::Deadline);
        }
        Ok(())
    }

    fn quiesce(&mut self, _io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(Running { works, statistics, .. }) = &mut self.running else { return Ok(()) };
        for (index, work) in (0u16..).zip(works) {
            if let (Some(chain), Some(queue)) = (work.chain.take(), queues.get(index)) {
                queue.put_back(chain)?;
            }
        }
        if let (Some(chain), Some(queue)) = (statistics.chain.take(), queues.get(STATISTICS)) {
            queue.put_back(chain)?;
            statistics.seen = true;
        }
        Ok(())
    }

    fn reset(&mut self, io: &mut Io) {
        self.running = None;
        self.handle.set_actual_pages(0);
        self.unsaid = Some(None);
        self.say();
        io.info_changed();
    }

    fn metrics(&self, meter: &mut Meter) {
        self.counters.show(meter);
    }

    fn save(&self) -> Result<DeviceState> {
        let Some(running) = &self.running else {
            return Err(Error::new(ErrorKind::InvalidState, "a balloon without a driver has nothing to save"));
        };
        let saved = Saved {
            target: self.told,
            actual: self.handle.actual_pages(),
            done: running.works.each_ref().map(|work| work.done),
            seen: running.statistics.seen,
        };
        Ok(saved.write(&running.pages))
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        self.handle.end();
    }
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;
