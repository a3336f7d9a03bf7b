//! What the owner of a device is asked for: activation, writes to the config space, reset, pause, state.

use std::sync::Arc;

use super::super::device::Activation;
use super::super::gate::{Message, Plan, Saved, Ticket};
use super::super::queue::{Queue, QueueConfig, QueueState, Queues, Start};
use super::super::spec::feature::RING_EVENT_IDX;
use super::{Life, Motion, Owner};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Io;
use crate::memory::Lessor;

impl Owner {
    pub(super) fn take_messages(&mut self, io: &mut Io) {
        let mut messages = std::mem::take(&mut self.messages);
        self.gate.take_messages(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Activate(plan) => self.activate(io, plan),
                Message::WriteConfig { offset, data, len, done } => {
                    let data = data.get(..len).unwrap_or_default();
                    if !self.has_failed() {
                        self.call(io, |device, io, _| {
                            device.write_config(io, offset, data);
                            Ok(())
                        });
                        // The driver may read at once what it wrote.
                        self.tell_if_changed(io);
                    }
                    done.answer(());
                }
                Message::Reset(done) => self.reset(io, done),
                Message::Quiesce(done) => self.quiesce(io, done),
                Message::Resume => self.resume(io),
                Message::Save(done) => {
                    let saved = self.save(io);
                    done.answer(saved);
                }
            }
        }
        self.messages = messages;
    }

    fn activate(&mut self, io: &mut Io, plan: Plan) {
        // It failed when its driver was on its way.
        if self.has_failed() {
            return;
        }
        self.lessor = self.new_lessor();
        let Plan { features, queues, state } = plan;
        match self.start_queues(features, &queues) {
            Ok(queues) => self.queues = queues,
            // They were checked when they became ready, so this is ours, not the driver's.
            Err(error) => return self.fail(io, &error),
        }
        self.queues.set_halted(!matches!(self.motion, Motion::Running));
        self.life = Life::Active;
        let is_restored = state.is_some();
        let activation = Activation::new(features, self.memory.clone(), state);
        self.call(io, |device, io, _| device.activate(io, activation));
        // What comes from a state is no news to the driver.
        if is_restored
            && !self.device.is_condemned()
            && io.take_info_changed()
            && let Err(error) = self.publish_config(io)
        {
            self.fail(io, &error);
        }
        self.ring_all();
    }

    pub(super) fn new_lessor(&self) -> Lessor {
        let lessor = Lessor::new(self.memory.clone());
        if let Some(waker) = self.waker.clone() {
            lessor.on_last(move || waker.wake());
        }
        lessor
    }

    fn start_queues(&self, features: u64, queues: &[Option<(QueueConfig, QueueState)>]) -> Result<Queues> {
        let start = |(index, queue): (u16, &Option<(QueueConfig, QueueState)>)| {
            let Some((config, state)) = queue else { return Ok(None) };
            let start = Start {
                lessor: self.lessor.clone(),
                index,
                event_idx: features & 1 << RING_EVENT_IDX != 0,
                interrupt: Arc::clone(&self.interrupt),
                waker: self.waker.clone(),
                state: *state,
            };
            Queue::start(config, start).map(Some)
        };
        (0u16..).zip(queues).map(start).collect::<Result<_>>().map(Queues::new)
    }

    /// Back to the state before activation; answered when nobody reaches into the guest's memory any more.
    fn reset(&mut self, io: &mut Io, done: Arc<Ticket<()>>) {
        self.count_chains();
        self.queues = Queues::default();
        self.let_go(io);
        self.life = if self.device.is_condemned() { Life::Dead } else { Life::Inactive };
        self.lessor.await_last(true);
        self.resets.push(done);
    }

    fn quiesce(&mut self, io: &mut Io, done: Arc<Ticket<Result<()>>>) {
        self.queues.set_halted(true);
        let was_running = matches!(self.motion, Motion::Running);
        self.motion = Motion::Quiescing;
        self.pauses.push(done);
        self.lessor.await_last(true);
        if was_running && self.life == Life::Active {
            self.call(io, |device, io, queues| device.quiesce(io, queues));
        }
    }

    fn resume(&mut self, io: &mut Io) {
        self.queues.set_halted(false);
        self.motion = Motion::Running;
        for pause in self.pauses.drain(..) {
            let message = "the device was told to go on before it stood still";
            pause.answer(Err(Error::new(ErrorKind::InvalidState, message)));
        }
        if self.resets.is_empty() {
            self.lessor.await_last(false);
        }
        for event in std::mem::take(&mut self.held) {
            self.deliver(io, &event);
        }
        self.ring_all();
    }

    fn save(&mut self, io: &mut Io) -> Result<Saved> {
        let still = matches!(self.motion, Motion::Still) && self.resets.is_empty();
        if !still || self.has_failed() {
            let message = "a device that runs, or needs a reset, cannot be saved; pause it first";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let queue = |queue: &Option<Queue>| queue.as_ref().map(Queue::state).transpose();
        let queues = self.queues.by_index().iter().map(queue).collect::<Result<_>>()?;
        if self.life != Life::Active {
            return Ok(Saved { queues, device: None });
        }
        let saved = self.device.call(io, |device, _| device.save());
        if let Err(error) = &saved {
            self.fail(io, error);
        }
        Ok(Saved { queues, device: Some(saved??) })
    }

    pub(super) fn finish_resets(&mut self) {
        self.lessor.await_last(false);
        // Before the answer, so that a failure of the device in its past life does not stand in the next.
        self.interrupt.reset();
        self.gate.set_needs_reset(self.has_failed());
        self.resets.drain(..).for_each(|done| done.answer(()));
    }
}
