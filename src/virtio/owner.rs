//! The half of a device that lives on an I/O thread: it alone calls the device, and lends it its queues.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::device::{Activation, VirtioDevice};
use super::gate::{Gate, Message, Plan, Saved, Ticket};
use super::interrupt::Interrupt;
use super::queue::{Queue, QueueConfig, QueueState, Queues, Start};
use super::spec::feature::RING_EVENT_IDX;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Cause, Event, Io, Participant, Token, Waker, Wants};
use crate::memory::{GuestMemory, Lessor};
use crate::sys::EventFd;

pub(super) struct Owner {
    device: Box<dyn VirtioDevice>,
    gate: Arc<Gate>,
    interrupt: Arc<dyn Interrupt>,
    memory: GuestMemory,
    doorbells: Vec<Doorbell>,
    /// Reports messages, chains that were dropped, and the end of the last lease.
    waker: Option<Waker>,
    own_token: Option<Token>,
    life: Life,
    motion: Motion,
    queues: Queues,
    /// Counts who reaches into the guest's memory for this activation.
    lessor: Lessor,
    resets: Vec<Arc<Ticket<()>>>,
    messages: Vec<Message>,
    /// Wakes that came while the device stood still.
    held: Vec<Event>,
    /// The device panicked where it can only be noted.
    panicked: Cell<bool>,
    /// The queue that is looked at first.
    first: usize,
    /// The device is to be called again, whatever happens.
    again: Cell<bool>,
}

struct Doorbell {
    event: Arc<EventFd>,
    token: Option<Token>,
    /// The queue is to be looked at.
    rung: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Inactive,
    Active,
    /// Only a reset helps.
    Failed,
}

enum Motion {
    Running,
    /// Takes no new chains, and waits for what is in flight.
    Quiescing(Arc<Ticket<()>>),
    Still,
}

impl Owner {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        gate: Arc<Gate>,
        interrupt: Arc<dyn Interrupt>,
        memory: GuestMemory,
        doorbells: &[Arc<EventFd>],
        still: bool,
    ) -> Self {
        let doorbell = |event: &Arc<EventFd>| Doorbell { event: Arc::clone(event), token: None, rung: false };
        Self {
            device,
            gate,
            interrupt,
            lessor: Lessor::new(memory.clone()),
            memory,
            doorbells: doorbells.iter().map(doorbell).collect(),
            waker: None,
            own_token: None,
            life: Life::Inactive,
            motion: if still { Motion::Still } else { Motion::Running },
            queues: Queues::default(),
            resets: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            panicked: Cell::new(false),
            first: 0,
            again: Cell::new(false),
        }
    }

    fn take_messages(&mut self, io: &mut Io) {
        let mut messages = std::mem::take(&mut self.messages);
        self.gate.take_messages(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Activate(plan) => self.activate(io, plan),
                Message::WriteConfig { offset, data, len, done } => {
                    let data = data.get(..len).unwrap_or_default();
                    if self.life != Life::Failed {
                        self.call(io, |device, io, _| {
                            device.write_config(io, offset, data);
                            Ok(())
                        });
                    }
                    done.answer(());
                }
                Message::Reset(done) => self.reset(io, done),
                Message::Quiesce(done) => self.quiesce(io, done),
                Message::Resume => self.resume(io),
                Message::Save(done) => done.answer(self.save()),
            }
        }
        self.messages = messages;
    }

    fn activate(&mut self, io: &mut Io, plan: Plan) {
        self.lessor = self.new_lessor();
        let Plan { features, queues, state } = plan;
        match self.start_queues(features, &queues) {
            Ok(queues) => self.queues = queues,
            // They were checked when they became ready, so this is ours, not the driver's.
            Err(_) => return self.fail(),
        }
        self.queues.set_halted(!matches!(self.motion, Motion::Running));
        self.life = Life::Active;
        let activation = Activation::new(features, self.memory.clone(), state);
        self.call(io, |device, io, _| device.activate(io, activation));
        self.ring_all();
    }

    fn new_lessor(&self) -> Lessor {
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
        self.queues = Queues::default();
        self.life = Life::Inactive;
        self.call(io, |device, io, _| {
            device.reset(io);
            Ok(())
        });
        self.lessor.await_last(true);
        self.resets.push(done);
    }

    fn quiesce(&mut self, io: &mut Io, done: Arc<Ticket<()>>) {
        self.queues.set_halted(true);
        let was_running = matches!(self.motion, Motion::Running);
        self.motion = Motion::Quiescing(done);
        self.lessor.await_last(true);
        match self.life {
            Life::Active if was_running => self.call(io, |device, io, queues| device.quiesce(io, queues)),
            // It cannot go on with what it holds, so it lets go of it; its driver is still to reset it.
            Life::Failed => {
                self.life = Life::Inactive;
                self.call(io, |device, io, _| {
                    device.reset(io);
                    Ok(())
                });
            }
            Life::Active | Life::Inactive => {}
        }
    }

    fn resume(&mut self, io: &mut Io) {
        self.queues.set_halted(false);
        self.motion = Motion::Running;
        if self.resets.is_empty() {
            self.lessor.await_last(false);
        }
        for event in std::mem::take(&mut self.held) {
            self.deliver(io, &event);
        }
        self.ring_all();
    }

    fn save(&self) -> Result<Saved> {
        let still = matches!(self.motion, Motion::Still) && self.resets.is_empty();
        if !still || self.gate.needs_reset() {
            let message = "a device that runs, or needs a reset, cannot be saved; pause it first";
            return Err(Error::new(ErrorKind::InvalidState, message));
        }
        let queue = |queue: &Option<Queue>| queue.as_ref().map(Queue::state).transpose();
        let queues = self.queues.by_index().iter().map(queue).collect::<Result<_>>()?;
        let device = || match self.life {
            Life::Active => self.device.save().map(Some),
            Life::Inactive | Life::Failed => Ok(None),
        };
        let panicked = |_| Err(Error::new(ErrorKind::Host, "a device panicked while it was saved"));
        let device = catch_unwind(AssertUnwindSafe(device)).unwrap_or_else(panicked)?;
        Ok(Saved { queues, device })
    }

    /// Sorts an event: a doorbell, our own waker, or the device's.
    fn take_event(&mut self, io: &mut Io, event: &Event) {
        if let Some(doorbell) = self.doorbells.iter_mut().find(|doorbell| doorbell.token == Some(event.token)) {
            doorbell.rung = true;
        } else if self.own_token != Some(event.token) {
            self.deliver(io, event);
        }
    }

    fn deliver(&mut self, io: &mut Io, event: &Event) {
        match self.motion {
            // A descriptor is reported again for as long as it is ready; a wake is not.
            Motion::Still if event.cause == Cause::Woken && !self.held.contains(event) => self.held.push(*event),
            Motion::Still => {}
            Motion::Running | Motion::Quiescing(_) if self.life == Life::Failed => {}
            Motion::Running | Motion::Quiescing(_) => {
                self.call(io, |device, io, queues| device.woken(io, queues, event));
            }
        }
    }

    /// Looks at the queues that were rung for, until the turn is over. The next turn begins with the one behind, so that no
    /// queue takes all the turns.
    fn process_queues(&mut self, io: &mut Io) {
        let count = self.doorbells.len();
        for step in 0..count {
            let position = self.first.wrapping_add(step).checked_rem(count).unwrap_or_default();
            let Some(doorbell) = self.doorbells.get_mut(position) else { return };
            if !std::mem::take(&mut doorbell.rung) {
                continue;
            }
            let Ok(index) = u16::try_from(position) else { return };
            self.call(io, |device, io, queues| device.process_queue(io, queues, index));
            if !self.is_running() {
                return;
            }
            if io.spent() {
                self.first = position.wrapping_add(1);
                return;
            }
        }
    }

    fn is_running(&self) -> bool {
        self.life == Life::Active && matches!(self.motion, Motion::Running)
    }

    /// After each turn: notify the driver, come back for leftovers, publish what changed, answer those who wait.
    fn settle(&mut self, io: &mut Io) {
        self.queues.iter_mut().for_each(Queue::notify);
        if io.spent() {
            self.ring_all();
            // A device whose queues are not looked at may have completions left.
            self.again.set(!self.is_running());
        }
        if io.take_info_changed() {
            self.publish_config();
        }
        if !self.resets.is_empty() && self.lessor.count() == 0 {
            self.finish_resets();
        }
        let idle = !self.queues.is_busy() && self.lessor.count() == 0;
        if idle
            && matches!(self.motion, Motion::Quiescing(_))
            && let Motion::Quiescing(done) = std::mem::replace(&mut self.motion, Motion::Still)
        {
            done.answer(());
        }
    }

    fn finish_resets(&mut self) {
        self.lessor.await_last(false);
        // Before the answer, so that a failure of the device in its past life does not stand in the next.
        self.interrupt.reset();
        self.gate.set_needs_reset(self.life == Life::Failed);
        self.resets.drain(..).for_each(|done| done.answer(()));
    }

    fn publish_config(&mut self) {
        let config = catch_unwind(AssertUnwindSafe(|| self.device.config()));
        let Ok(config) = config else { return self.fail() };
        self.gate.config.publish(&config);
        if self.life == Life::Active {
            self.interrupt.signal_config();
        }
    }

    /// Makes one call; an error or a panic makes the device one that needs a reset.
    fn call(&mut self, io: &mut Io, call: impl FnOnce(&mut dyn VirtioDevice, &mut Io, &mut Queues) -> Result<()>) {
        let result = catch_unwind(AssertUnwindSafe(|| call(self.device.as_mut(), io, &mut self.queues)));
        if !matches!(result, Ok(Ok(()))) {
            self.fail();
        }
    }

    /// Sets DEVICE_NEEDS_RESET, and says so to a driver that is there to hear it (2.1.2). The rings are not touched again.
    fn fail(&mut self) {
        let was_active = self.life == Life::Active;
        self.life = Life::Failed;
        self.queues = Queues::default();
        self.gate.set_needs_reset(true);
        if was_active {
            self.interrupt.signal_config();
        }
    }

    fn ring_all(&mut self) {
        let running = self.is_running();
        self.doorbells.iter_mut().for_each(|doorbell| doorbell.rung = running);
    }
}

impl Participant for Owner {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        let waker = io.waker(token);
        self.gate.set_owner(waker.clone());
        self.own_token = Some(token);
        self.waker = Some(waker);
        self.lessor = self.new_lessor();
        for doorbell in &mut self.doorbells {
            doorbell.token = Some(io.token());
        }
        self.device.attach(io)?;
        // What changed while the device attached is no news: it is published from the start.
        if io.take_info_changed() {
            self.publish_config();
        }
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        if self.gate.is_closed() {
            self.queues = Queues::default();
            return;
        }
        if self.panicked.take() {
            self.fail();
        }
        self.take_messages(io);
        if self.again.take()
            && let Some(token) = self.own_token
        {
            self.deliver(io, &Event::new(token, Cause::Again));
        }
        for event in events {
            self.take_event(io, event);
        }
        if self.is_running() {
            self.process_queues(io);
        }
        self.settle(io);
    }

    fn wants(&self, wants: &mut Wants) {
        if self.gate.is_closed() {
            return;
        }
        if self.is_running() {
            for doorbell in &self.doorbells {
                if let Some(token) = doorbell.token {
                    wants.doorbell(token, &doorbell.event);
                }
            }
            if self.doorbells.iter().any(|doorbell| doorbell.rung) {
                wants.again();
            }
        }
        if self.life != Life::Failed && !matches!(self.motion, Motion::Still) {
            let others = wants.take_again();
            let asked = catch_unwind(AssertUnwindSafe(|| self.device.wants(wants)));
            self.panicked.set(asked.is_err());
            self.again.set(self.again.get() || wants.take_again());
            if others || self.again.get() || self.panicked.get() {
                wants.again();
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Nobody is to wait for an answer that will not come.
        self.gate.close();
    }
}
