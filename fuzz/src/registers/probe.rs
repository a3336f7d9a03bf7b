//! A device that answers each request by nothing, tells what is done to it, and fails when it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmcell::event::{Event, Io, Waker};
use vmcell::virtio::{Activation, DeviceInfo, DeviceState, Queues, VirtioDevice};
use vmcell::{Error, ErrorKind, Result};

use super::model::{DEPENDENT, DEVICE_ID, OWN, QUEUE_SIZES};
use crate::alloc::uncounted;

/// What test and device have in common.
#[derive(Default)]
pub struct Seen {
    pub config: Vec<u8>,
    pub activations: u32,
    pub features: u64,
    /// What it does when it is woken next.
    pub task: Option<Task>,
    pub waker: Option<Waker>,
    /// It is between activation and reset.
    pub active: bool,
}

/// What a device does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Fail,
    /// Changes the first byte of the config space.
    Change(u8),
}

pub struct Probe(pub Arc<Mutex<Seen>>);

pub fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtioDevice for Probe {
    fn info(&self) -> DeviceInfo {
        DeviceInfo::new(DEVICE_ID, &QUEUE_SIZES).features(OWN | DEPENDENT).requires(5, 1 << 3)
    }

    fn config(&mut self) -> Vec<u8> {
        lock(&self.0).config.clone()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        lock(&self.0).waker = Some(io.waker(token));
        Ok(())
    }

    fn activate(&mut self, _io: &mut Io, activation: Activation) -> Result<()> {
        let mut seen = lock(&self.0);
        assert!(!seen.active, "a device is activated twice without a reset");
        seen.active = true;
        // One that goes on does not begin.
        seen.activations += u32::from(activation.state.is_none());
        seen.features = activation.features;
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        assert!(lock(&self.0).active, "a device that is not active is shown a queue");
        let Some(queue) = queues.get(index) else { return Ok(()) };
        while let Some(chain) = queue.pop(io)? {
            queue.complete(chain, 0);
        }
        Ok(())
    }

    fn write_config(&mut self, io: &mut Io, offset: u64, data: &[u8]) {
        let mut seen = lock(&self.0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in seen.config.iter_mut().skip(start).zip(data) {
            *to = *from;
        }
        io.info_changed();
    }

    fn woken(&mut self, io: &mut Io, _queues: &mut Queues, _event: &Event) -> Result<()> {
        let mut seen = lock(&self.0);
        match seen.task.take() {
            Some(Task::Fail) => uncounted(|| Err(Error::new(ErrorKind::Host, "told to fail"))),
            Some(Task::Change(value)) => {
                seen.config[0] = value;
                io.info_changed();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn reset(&mut self, _io: &mut Io) {
        lock(&self.0).active = false;
    }

    fn save(&self) -> Result<DeviceState> {
        Ok(DeviceState::new(1, []))
    }
}
