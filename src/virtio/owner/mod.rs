//! The half of a device that lives on an I/O thread: it alone calls the device, and lends it its queues.

mod failing;
mod messages;

use std::cell::Cell;
use std::sync::Arc;

use super::device::VirtioDevice;
use super::gate::{Gate, Message, Ticket};
use super::guarded::Guarded;
use super::interrupt::Interrupt;
use super::queue::{Queue, Queues};
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
    /// The device knows that it is not called any more.
    closed: bool,
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
            closed: false,
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
        self.tell_if_changed(io);
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

    fn publish_config(&mut self, io: &mut Io) -> Result<()> {
        let config = self.device.call(io, |device, _| device.config())?;
        self.gate.config.publish(&config);
        Ok(())
    }

    fn tell_if_changed(&mut self, io: &mut Io) {
        // What changed last of a device that is gone is not known.
        if io.take_info_changed()
            && !self.device.is_condemned()
            && let Err(error) = self.tell_config(io)
        {
            self.fail(io, &error);
        }
    }

    fn tell_config(&mut self, io: &mut Io) -> Result<()> {
        self.publish_config(io)?;
        if self.life == Life::Active {
            self.gate.config.tell();
            self.interrupt.signal_config();
        }
        Ok(())
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
            if !std::mem::replace(&mut self.closed, true) {
                let _ = self.device.ask(|device| device.closed());
            }
            return;
        }
        // It panicked where that could only be noted.
        if self.device.has_news()
            && let Err(error) = self.device.check()
        {
            self.fail(io, &error);
        }
        self.take_messages(io);
        if self.is_running() && self.gate.config.take_read() {
            self.call(io, |device, io, _| {
                device.config_read(io);
                Ok(())
            });
        }
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
