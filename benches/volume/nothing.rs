//! A backend that completes everything at once and moves nothing.

use std::collections::VecDeque;

use vmcell::block::{DiskBackend, DiskInfo, Done, Operation, Tag};
use vmcell::event::Io;

pub struct Nothing {
    info: DiskInfo,
    done: VecDeque<Done>,
}

impl Nothing {
    pub fn new(capacity: u64) -> Self {
        let mut info = DiskInfo::new(capacity);
        info.max_transfer = 256 << 10;
        Self { info, done: VecDeque::new() }
    }
}

impl DiskBackend for Nothing {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn submit(&mut self, _io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
        self.done.push_back(Done::new(tag, operation, Ok(())));
        Ok(())
    }

    fn completed(&mut self, _io: &mut Io) -> Option<Done> {
        self.done.pop_front()
    }
}
