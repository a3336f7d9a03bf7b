//! The half of a device that lives on an I/O thread: it alone calls the device, and lends it its queues.

use std::cell::Cell;
use std::sync::Arc;

use super::device::{Activation, VirtioDevice};
use super::gate::{Gate, Message, Plan, Saved, Ticket};
use super::guarded::Guarded;
use super::interrupt::Interrupt;
use super::queue::{Queue, QueueConfig, QueueState, Queues, Start};
use super::spec::feature::RING_EVENT_IDX;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Cause, Event, Io, Participant, Token, Waker, Wants};
use crate::logging::{LogLevel, Throttle, Voice};
use crate::memory::{GuestMemory, Lessor};
use crate::sys::EventFd;

pub(super) struct Owner {
    device: Guarded<dyn VirtioDevice>,
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
    /// Who waits for the device to stand still.
    pauses: Vec<Arc<Ticket<Result<()>>>>,
    messages: Vec<Message>,
    /// Wakes that came while the device stood still.
    held: Vec<Event>,
    /// The queue that is looked at first.
    first: usize,
    /// The last turn was over before the queues were looked at, or the events; so they come first in this one.
    queues_first: bool,
    /// The device is to be called again, whatever happens.
    again: Cell<bool>,
    voice: Voice,
    /// Chains that broke the rules.
    refused: Throttle,
    failures: Throttle,
    /// Failures after which something is never called again: what a guest causes must not keep these from being said.
    losses: Throttle,
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
    /// Only a reset helps. It has let go of its chains, and still hears of what was in flight.
    Failed,
    /// It failed while it had failed, so it is not called before the reset.
    Broken,
    /// It is never called again, and no reset helps.
    Dead,
}

enum Motion {
    Running,
    /// Takes no new chains, and waits for what is in flight.
    Quiescing,
    Still,
}

impl Owner {
    pub(super) fn new(
        device: Guarded<dyn VirtioDevice>,
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
            pauses: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            first: 0,
            queues_first: false,
            again: Cell::new(false),
            voice: Voice::default(),
            refused: Throttle::default(),
            failures: Throttle::default(),
            losses: Throttle::default(),
        }
    }

    pub(super) fn saying(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }

    fn take_messages(&mut self, io: &mut Io) {
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

    fn take_events(&mut self, io: &mut Io, events: &[Event]) {
        if self.again.take()
            && let Some(token) = self.own_token
        {
            self.deliver(io, &Event::new(token, Cause::Again));
        }
        for event in events {
            self.take_event(io, event);
        }
    }

    /// Sorts an event: a doorbell, our own waker, or the device's.
    fn take_event(&mut self, io: &mut Io, event: &Event) {
        if let Some(doorbell) = self.doorbells.iter_mut().find(|doorbell| doorbell.token == Some(event.token)) {
            doorbell.rung = true;
            self.gate.counters.doorbells.add(1);
        } else if self.own_token != Some(event.token) {
            self.deliver(io, event);
        }
    }

    fn deliver(&mut self, io: &mut Io, event: &Event) {
        match self.motion {
            // A descriptor is reported again for as long as it is ready; a wake is not.
            Motion::Still if event.cause == Cause::Woken && !self.held.contains(event) => self.held.push(*event),
            Motion::Still => {}
            Motion::Running | Motion::Quiescing if !self.hears() => {}
            Motion::Running | Motion::Quiescing => {
                self.call(io, |device, io, queues| device.woken(io, queues, event));
            }
        }
    }

    /// Looks at the queues that were rung for, until the turn is over. The next turn begins with the one behind, so that no
    /// queue takes all the turns.
    fn process_queues(&mut self, io: &mut Io) {
        if !self.is_running() {
            return;
        }
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

    fn has_failed(&self) -> bool {
        matches!(self.life, Life::Failed | Life::Broken | Life::Dead)
    }

    /// Whether the device is told what happens.
    fn hears(&self) -> bool {
        !matches!(self.life, Life::Broken | Life::Dead)
    }

    fn is_running(&self) -> bool {
        self.life == Life::Active && matches!(self.motion, Motion::Running)
    }

    /// After each turn: notify the driver, come back for leftovers, publish what changed, answer those who wait.
    fn settle(&mut self, io: &mut Io) {
        self.queues.iter_mut().for_each(Queue::notify);
        // Each chain is charged.
        if io.has_charged() {
            self.count_chains();
        }
        if io.spent() {
            self.ring_all();
            // A device whose queues are not looked at may have completions left.
            self.again.set(!self.is_running());
        }
        // What changed last of a device that is gone is not known.
        if io.take_info_changed()
            && !self.device.is_condemned()
            && let Err(error) = self.publish_config(io)
        {
            self.fail(io, &error);
        }
        if !self.resets.is_empty() && self.lessor.count() == 0 {
            self.finish_resets();
        }
        let idle = !self.queues.is_busy() && self.lessor.count() == 0;
        if idle && matches!(self.motion, Motion::Quiescing) {
            self.motion = Motion::Still;
            self.pauses.drain(..).for_each(|done| done.answer(Ok(())));
        }
    }

    /// Before the queues are dropped, too.
    fn count_chains(&mut self) {
        let counters = &self.gate.counters;
        let mut all_refused = 0;
        for queue in self.queues.iter_mut() {
            let (chains, refused) = queue.take_counts();
            if chains > 0 {
                counters.chains.add(chains.into());
                all_refused = u64::from(refused).saturating_add(all_refused);
            }
        }
        if all_refused > 0 {
            self.say_refused(all_refused);
        }
    }

    #[cold]
    fn say_refused(&mut self, count: u64) {
        self.gate.counters.refused_chains.add(count);
        if let Some((count, total)) = self.refused.count(count) {
            let message = || format!("{count} chains of the driver broke the rules for descriptors, {total} in all");
            self.voice.say(LogLevel::Warn, message);
        }
    }

    fn finish_resets(&mut self) {
        self.lessor.await_last(false);
        // Before the answer, so that a failure of the device in its past life does not stand in the next.
        self.interrupt.reset();
        self.gate.set_needs_reset(self.has_failed());
        self.resets.drain(..).for_each(|done| done.answer(()));
    }

    fn publish_config(&mut self, io: &mut Io) -> Result<()> {
        let config = self.device.call(io, |device, _| device.config())?;
        self.gate.config.publish(&config);
        if self.life == Life::Active {
            self.interrupt.signal_config();
        }
        Ok(())
    }

    /// Makes one call; an error or a panic makes the device one that needs a reset.
    fn call(&mut self, io: &mut Io, call: impl FnOnce(&mut dyn VirtioDevice, &mut Io, &mut Queues) -> Result<()>) {
        let queues = &mut self.queues;
        let result = self.device.call(io, |device, io| call(device, io, queues));
        if let Err(error) | Ok(Err(error)) = result {
            self.fail(io, &error);
        }
    }

    /// Sets DEVICE_NEEDS_RESET, and says so to a driver that is there to hear it (2.1.2). The rings are not touched again. The
    /// device lets go of its chains: a pause must not wait for a driver that never resets it.
    fn fail(&mut self, io: &mut Io, why: &Error) {
        self.note(why);
        let (was_active, had_failed) = (self.life == Life::Active, self.has_failed());
        self.count_chains();
        self.queues = Queues::default();
        self.let_go(io);
        self.life = match had_failed {
            _ if self.device.is_condemned() => Life::Dead,
            true => Life::Broken,
            false => Life::Failed,
        };
        self.gate.set_needs_reset(true);
        if was_active {
            self.interrupt.signal_config();
        }
    }

    /// Tells the host program.
    fn note(&mut self, why: &Error) {
        let (cause, message) = self.gate.failures.note(why);
        if cause.is_final() {
            if self.losses.count(1).is_some() {
                self.voice.say(LogLevel::Error, || format!("failed for good: {message}"));
            }
        } else if let Some((_, total)) = self.failures.count(1) {
            let message = || format!("failed ({total} so far), and needs a reset by its driver: {message}");
            self.voice.say(LogLevel::Error, message);
        }
    }

    /// Has the device drop its chains and cancel what is in flight. One that is never called again has been dropped, or soon is,
    /// and its chains with it.
    fn let_go(&mut self, io: &mut Io) {
        if !self.device.is_condemned()
            && let Err(error) = self.device.call(io, |device, io| device.reset(io))
        {
            self.note(&error);
        }
    }

    /// Has those queues looked at of which `is_due` says so; says whether there are any.
    fn ring_if(&mut self, is_due: impl Fn(&mut Queue) -> bool) -> bool {
        if !self.is_running() {
            return false;
        }
        let mut any = false;
        for (index, doorbell) in (0u16..).zip(&mut self.doorbells) {
            let due = self.queues.get(index).is_some_and(&is_due);
            doorbell.rung |= due;
            any |= due;
        }
        any
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
        self.device.call(io, |device, io| device.attach(io))??;
        // What changed while the device attached is no news: it is published from the start.
        if io.take_info_changed() {
            self.publish_config(io)?;
        }
        Ok(())
    }

    fn turn(&mut self, io: &mut Io, events: &[Event]) {
        if self.gate.is_closed() {
            self.count_chains();
            self.queues = Queues::default();
            return;
        }
        // It panicked where that could only be noted.
        if self.device.has_news()
            && let Err(error) = self.device.check()
        {
            self.fail(io, &error);
        }
        self.take_messages(io);
        let queues_first = self.queues_first;
        if queues_first {
            self.process_queues(io);
        }
        self.take_events(io, events);
        if !queues_first {
            self.process_queues(io);
        }
        // Whatever fills its turns alone, a flood of frames or of doorbells, has every other one.
        self.queues_first = io.spent() && !queues_first;
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
        if self.hears() && !matches!(self.motion, Motion::Still) {
            let others = wants.take_again();
            self.device.look(|device| device.wants(wants));
            self.again.set(self.again.get() || wants.take_again());
            if others || self.again.get() || self.device.has_news() {
                wants.again();
            }
        }
    }

    fn has_work(&mut self) -> bool {
        self.ring_if(Queue::find_more)
    }

    fn rest(&mut self) -> bool {
        self.ring_if(Queue::call_for_more)
    }

    /// What the device waits for would never come, so the device has failed.
    fn refused(&mut self, io: &mut Io) -> bool {
        if !self.hears() {
            return false;
        }
        self.fail(io, &Error::new(ErrorKind::Host, "the host cannot watch what the device waits for"));
        true
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Nobody is to wait for an answer that will not come.
        self.gate.close();
    }
}
