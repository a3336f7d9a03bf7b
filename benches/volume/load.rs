//! A load on a disk backend, as a device would drive it: so many requests in flight, each in a buffer of a guest's.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use vmcell::block::{DiskBackend, Operation, Slab};
use vmcell::testing::{IoRig, guest_ranges};
use vmcell::{Buffer, Error, ErrorKind, GuestAddress, GuestMemory, Result};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    RandomRead,
    RandomWrite,
    Read,
    Write,
}

#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub kind: Kind,
    /// Bytes of a request.
    pub len: usize,
    pub depth: usize,
}

pub struct Rig {
    backend: Box<dyn DiskBackend>,
    io: IoRig,
    memory: GuestMemory,
    /// A pseudo-random place.
    state: u64,
    next: u64,
}

const MOST_DEPTH: usize = 32;
const MOST_LEN: usize = 256 << 10;

impl Rig {
    pub fn new(mut backend: impl DiskBackend + 'static) -> Result<Self> {
        let mut io = IoRig::new();
        backend.attach(&mut io.turn())?;
        let memory = GuestMemory::anonymous(&[(GuestAddress(0), (MOST_DEPTH * MOST_LEN) as u64)])?;
        Ok(Self { backend: Box::new(backend), io, memory, state: 1, next: 0 })
    }

    /// Writes all of it once, and makes it stable.
    pub fn fill(&mut self) -> Result<()> {
        let load = Load { name: "", kind: Kind::Write, len: MOST_LEN, depth: 4 };
        let count = self.backend.info().capacity / MOST_LEN as u64;
        self.next = 0;
        self.serve(load, |done| done >= count)?;
        let tag = Slab::new(1).insert(()).map_err(|()| broken("it has no tag"))?;
        let refused = self.backend.submit(&mut self.io.turn_without_clock(), tag, Operation::Flush);
        refused.map_err(|_| broken("it takes no flush"))?;
        self.backend.commit(&mut self.io.turn_without_clock());
        while self.backend.completed(&mut self.io.turn_without_clock()).is_none() {
            let backend = &mut self.backend;
            for event in self.io.wait(Duration::from_secs(10), |wants| backend.wants(wants))? {
                self.backend.woken(&mut self.io.turn_without_clock(), &event);
            }
        }
        Ok(())
    }

    /// Passes on what other threads have woken the backend for.
    pub fn look(&mut self) {
        for event in self.io.woken() {
            self.backend.woken(&mut self.io.turn_without_clock(), &event);
        }
    }

    /// Runs a load for so long; gives operations a second.
    pub fn run(&mut self, load: Load, time: Duration) -> Result<f64> {
        let began = Instant::now();
        let done = self.serve(load, |_| began.elapsed() >= time)?;
        Ok(done as f64 / began.elapsed().as_secs_f64())
    }

    /// The same, but gives operations a second of this thread's CPU time, as OpenSSL measures itself.
    pub fn run_by_cpu(&mut self, load: Load, time: Duration) -> Result<f64> {
        let (began, before) = (Instant::now(), cpu_time());
        let done = self.serve(load, |_| began.elapsed() >= time)?;
        Ok(done as f64 / (cpu_time() - before))
    }

    fn place(&mut self, load: Load) -> u64 {
        let count = self.backend.info().capacity / load.len as u64;
        let index = match load.kind {
            Kind::Read | Kind::Write => {
                self.next += 1;
                self.next - 1
            }
            Kind::RandomRead | Kind::RandomWrite => {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.state
            }
        };
        index % count * load.len as u64
    }

    fn operation(&mut self, load: Load, slot: usize) -> Result<Operation> {
        let at = self.place(load);
        let gpa = GuestAddress((slot * MOST_LEN) as u64);
        let buffer = Buffer::Guest(guest_ranges(&self.memory, &[(gpa, load.len as u32)])?);
        Ok(match load.kind {
            Kind::Read | Kind::RandomRead => Operation::Read { at, into: buffer },
            Kind::Write | Kind::RandomWrite => Operation::Write { at, from: buffer, stable: false },
        })
    }

    /// Keeps so many requests in flight until enough are done; gives how many that were.
    fn serve(&mut self, load: Load, is_over: impl Fn(u64) -> bool) -> Result<u64> {
        let mut tags = Slab::new(MOST_DEPTH);
        let mut free: Vec<usize> = (0..load.depth).collect();
        let (mut done, mut over) = (0, false);
        loop {
            while let Some(slot) = free.pop().filter(|_| !over) {
                let operation = self.operation(load, slot)?;
                let tag = tags.insert(slot).map_err(|_| broken("it has no tag"))?;
                if self.backend.submit(&mut self.io.turn_without_clock(), tag, operation).is_err() {
                    tags.remove(tag);
                    free.push(slot);
                    break;
                }
            }
            self.backend.commit(&mut self.io.turn_without_clock());
            let before = done;
            while let Some(completed) = self.backend.completed(&mut self.io.turn_without_clock()) {
                completed.result.map_err(|e| broken("a request failed").with_source(e))?;
                free.extend(tags.remove(completed.tag));
                done += 1;
            }
            over |= is_over(done);
            if over && tags.is_empty() {
                return Ok(done);
            }
            if done == before {
                let backend = &mut self.backend;
                for event in self.io.wait(Duration::from_secs(10), |wants| backend.wants(wants))? {
                    self.backend.woken(&mut self.io.turn_without_clock(), &event);
                }
            }
        }
    }
}

fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Disk, message)
}
