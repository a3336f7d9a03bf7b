//! A backend as somebody sees it who reads and writes it from the host, one operation after the other.

#![allow(dead_code, reason = "not each test uses all of it")]

use std::io;
use std::time::{Duration, Instant};

use vmcell::block::{ByteRange, DiskBackend, DiskInfo, Operation, Slab};
use vmcell::testing::IoRig;
use vmcell::{Buffer, HostBuffer};

pub struct Plain {
    backend: Box<dyn DiskBackend>,
    rig: IoRig,
    tags: Slab<()>,
}

impl Plain {
    pub fn new(mut backend: impl DiskBackend + 'static) -> Self {
        let mut rig = IoRig::new();
        backend.attach(&mut rig.turn()).unwrap();
        Self { backend: Box::new(backend), rig, tags: Slab::new(1) }
    }

    pub fn info(&self) -> DiskInfo {
        self.backend.info()
    }

    pub fn read(&mut self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let into = Buffer::Host(HostBuffer::new(len));
        let Operation::Read { into, .. } = self.run(Operation::Read { at, into })? else { panic!("another operation") };
        let mut bytes = vec![0; len];
        into.copy_out(0, &mut bytes).unwrap();
        Ok(bytes)
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut from = HostBuffer::new(bytes.len());
        from.copy_from_slice(bytes);
        self.run(Operation::Write { at, from: Buffer::Host(from), stable: false }).map(drop)
    }

    pub fn zero(&mut self, at: u64, len: u64) -> io::Result<()> {
        let range = ByteRange { at, len };
        self.run(Operation::WriteZeroes { range, unmap: true, stable: false }).map(drop)
    }

    pub fn discard(&mut self, at: u64, len: u64) -> io::Result<()> {
        self.run(Operation::Discard(ByteRange { at, len })).map(drop)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.run(Operation::Flush).map(drop)
    }

    /// The host program says that the size has changed; returns once the backend has seen it.
    pub fn refresh(&mut self) {
        let before = self.info();
        self.backend.refresh(&mut self.rig.turn());
        self.backend.commit(&mut self.rig.turn());
        while self.info() == before {
            for event in self.rig.wait(Duration::from_secs(10), |wants| self.backend.wants(wants)).unwrap() {
                self.backend.woken(&mut self.rig.turn(), &event);
            }
            assert!(self.backend.completed(&mut self.rig.turn()).is_none());
        }
    }

    /// Serves it for a moment while there is nothing to do.
    pub fn idle(&mut self) {
        for event in self.rig.wait(Duration::from_millis(1), |wants| self.backend.wants(wants)).unwrap() {
            self.backend.woken(&mut self.rig.turn(), &event);
        }
        assert!(self.backend.completed(&mut self.rig.turn()).is_none());
        self.backend.commit(&mut self.rig.turn());
    }

    fn run(&mut self, operation: Operation) -> io::Result<Operation> {
        let tag = self.tags.insert(()).unwrap();
        let refused = self.backend.submit(&mut self.rig.turn(), tag, operation);
        assert!(refused.is_ok(), "there is nothing else in flight");
        self.backend.commit(&mut self.rig.turn());
        loop {
            if let Some(done) = self.backend.completed(&mut self.rig.turn()) {
                self.tags.remove(done.tag);
                return done.result.map(|()| done.operation);
            }
            let began = Instant::now();
            let events = self.rig.wait(Duration::from_secs(10), |wants| self.backend.wants(wants)).unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "an operation is in flight, and nothing wakes the backend"
            );
            for event in events {
                self.backend.woken(&mut self.rig.turn(), &event);
            }
        }
    }
}
