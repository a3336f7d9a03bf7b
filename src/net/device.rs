//! The virtio-net device: config space, link, and which half has something to do.

mod away;
mod limits;

use std::cmp::Ordering;

use away::Away;

use super::backend::{Need, NicBackend, NicInfo};
use super::control::{self, Command};
use super::feature;
use super::handle::NicHandle;
use super::lend::RxReturn;
use super::offloads::Offloads;
use super::receive::{Receiver, RxBatch};
use super::transmit::{Transmitter, TxBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Cause, Event, Io, Token, Wants};
use crate::limit::{LimitGroup, Limiter};
use crate::meter::Meter;
use crate::virtio::spec::device_id;
use crate::virtio::{Activation, DeviceInfo, DeviceState, Guarded, Queue, Queues, VirtioDevice};

/// Queues that receive or send, and the control queue behind them (5.1.2).
const FRAME_QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 64;
/// Bits of the status field (5.1.4).
const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;
/// The form of a saved state: a byte that says whether an announcement is outstanding, and two for the number of pairs of queues
/// that get frames. The form before this one had the byte alone.
const STATE_VERSION: u32 = 2;

pub(crate) struct Net {
    /// One for each pair of queues. All of them are read, however many pairs the driver uses: taking a queue off a TAP device while
    /// it carries frames would have the guest hold a lock of the whole host, as often as it likes.
    backends: Vec<Guarded<dyn NicBackend>>,
    /// What all backends have in common.
    info: NicInfo,
    mac: [u8; 6],
    mtu: Option<u16>,
    handle: NicHandle,
    handle_token: Option<Token>,
    limit_token: Option<Token>,
    receive_limiter: Limiter,
    /// The limits that what is sent keeps to, too.
    send_group: Option<LimitGroup>,
    /// The guest is asked to announce itself.
    announcing: bool,
    away: Away,
    /// The backend that is asked first for frames.
    first: usize,
    running: Option<Running>,
}

struct Running {
    /// As many as there are backends if the driver knows several, otherwise one.
    pairs: Vec<Pair>,
    /// So many of them get frames: those of backend `n` go to pair `n % receiving`. Each one may send.
    receiving: usize,
    /// The driver knows commands.
    commands: bool,
    /// The driver knows announcements.
    announces: bool,
    /// What is given back to each pair. Empty; kept for its storage.
    returns: Vec<RxReturn>,
}

struct Pair {
    receiver: Receiver,
    transmitter: Transmitter,
}

/// What a queue is for.
enum Role {
    Receive(usize),
    Transmit(usize),
    Control,
    /// Nothing: the driver knows fewer queues.
    Unused,
}

impl Running {
    fn role(&self, queue: u16) -> Role {
        let pair = usize::from(queue / 2);
        match pair.cmp(&self.pairs.len()) {
            Ordering::Less if queue.is_multiple_of(2) => Role::Receive(pair),
            Ordering::Less => Role::Transmit(pair),
            Ordering::Equal if queue.is_multiple_of(2) && self.commands => Role::Control,
            Ordering::Equal | Ordering::Greater => Role::Unused,
        }
    }

    /// The pair to which the frames of a backend go.
    fn pair_of(&self, backend: usize) -> usize {
        backend.checked_rem(self.receiving).unwrap_or(0)
    }
}

fn receive_queue(queues: &mut Queues, pair: usize) -> Option<&mut Queue> {
    queues.get(u16::try_from(pair).ok()?.checked_mul(2)?)
}

fn transmit_queue(queues: &mut Queues, pair: usize) -> Option<&mut Queue> {
    queues.get(u16::try_from(pair).ok()?.checked_mul(2)?.checked_add(1)?)
}

impl Net {
    /// Makes the device on at least one backend.
    ///
    /// # Errors
    /// If a backend panics.
    pub(super) fn new(
        backends: Vec<Box<dyn NicBackend>>,
        mac: [u8; 6],
        mtu: Option<u16>,
        handle: NicHandle,
    ) -> Result<Self> {
        let guard = |backend| Guarded::new(backend, "backend", ErrorKind::Network);
        let mut backends: Vec<_> = backends.into_iter().map(guard).collect();
        let infos = backends.iter_mut().map(|backend| backend.ask(|backend| backend.info()));
        let infos = infos.collect::<Result<Vec<_>>>()?;
        let info = infos.into_iter().reduce(NicInfo::common).unwrap_or_default();
        Ok(Self {
            backends,
            info,
            mac,
            mtu,
            receive_limiter: Limiter::new(handle.receive_limits(), None),
            send_group: None,
            handle,
            handle_token: None,
            limit_token: None,
            announcing: false,
            away: Away::No,
            first: 0,
            running: None,
        })
    }

    /// Has both directions keep to the limits of groups, too.
    pub(super) fn in_groups(mut self, receive: Option<&LimitGroup>, send: Option<LimitGroup>) -> Self {
        self.receive_limiter = Limiter::new(self.handle.receive_limits(), receive);
        self.send_group = send;
        self
    }

    /// The number of pairs that the driver is told of.
    fn pair_count(&self) -> u16 {
        u16::try_from(self.backends.len()).unwrap_or(u16::MAX)
    }

    fn link_is_up(&self) -> bool {
        self.info.link_up && self.handle.link() && !self.away.is_away()
    }

    /// Asks the backends for frames, those of one pair or all, beginning behind the one that used up the last turn.
    fn receive(&mut self, io: &mut Io, queues: &mut Queues, only: Option<usize>) -> Result<()> {
        let is_up = self.link_is_up();
        let Some(running) = self.running.as_mut().filter(|_| is_up) else { return Ok(()) };
        if !self.receive_limiter.settle_past(io.now()) {
            return Ok(());
        }
        let count = self.backends.len();
        for step in 0..count {
            let index = self.first.wrapping_add(step).checked_rem(count).unwrap_or(0);
            let to = running.pair_of(index);
            if only.is_some_and(|only| only != to) {
                continue;
            }
            let backend = self.backends.get_mut(index);
            let pair = running.pairs.get_mut(to);
            let (Some(backend), Some(pair), Some(queue)) = (backend, pair, receive_queue(queues, to)) else { continue };
            let was_over = io.spent();
            // Whether there is room decides what the backend waits for, even if it has no frame now.
            pair.receiver.gather(io, queue)?;
            let mut frames = RxBatch::new(&mut pair.receiver, queue, &mut self.receive_limiter);
            backend.call(io, |backend, io| backend.receive(io, &mut frames))?;
            frames.finish(self.handle.counters())?;
            if io.spent() {
                // One that had nothing of the turn is the first in the next.
                self.first = if was_over { index } else { index.wrapping_add(1) };
                break;
            }
            if self.receive_limiter.until().is_some() {
                self.first = index.wrapping_add(1);
                break;
            }
        }
        Ok(())
    }

    fn transmit(&mut self, io: &mut Io, queues: &mut Queues, index: usize) -> Result<()> {
        let is_up = self.link_is_up();
        let pair = self.running.as_mut().and_then(|running| running.pairs.get_mut(index));
        let (Some(pair), Some(queue)) = (pair, transmit_queue(queues, index)) else { return Ok(()) };
        if !is_up {
            return pair.transmitter.discard(io, queue, self.handle.counters());
        }
        if !pair.transmitter.may_send(io) {
            return Ok(());
        }
        let Some(backend) = self.backends.get_mut(index) else { return Ok(()) };
        let mut frames = TxBatch::new(&mut pair.transmitter, queue);
        backend.call(io, |backend, io| backend.send(io, &mut frames))?;
        frames.finish(self.handle.counters())
    }

    /// Sends what waited for its backend.
    fn transmit_backlogs(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let waits = |net: &Self, index: usize| {
            let pair = net.running.as_ref().and_then(|running| running.pairs.get(index));
            pair.is_some_and(|pair| pair.transmitter.has_sendable())
        };
        for index in 0..self.backends.len() {
            if waits(self, index) {
                self.transmit(io, queues, index)?;
                // The queues have their turns anyway if this one is over.
                if io.spent() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Obeys the commands of the control queue.
    fn control(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        let mut pairs_changed = false;
        while let Some(queue) = queues.get(index)
            && let Some(chain) = queue.pop(io)?
        {
            let obeyed = match Command::parse(&chain) {
                Some(Command::Announced) => {
                    if std::mem::take(&mut self.announcing) {
                        io.info_changed();
                    }
                    true
                }
                Some(Command::Pairs(count)) => {
                    let obeyed = self.set_receiving(io, queues, count)?;
                    pairs_changed |= obeyed;
                    obeyed
                }
                None => false,
            };
            let written = control::answer(&chain, obeyed);
            if let Some(queue) = queues.get(index) {
                queue.complete(chain, written);
            }
        }
        // Pairs that get frames from now on have buffers.
        if pairs_changed { self.receive(io, queues, None) } else { Ok(()) }
    }

    /// Has so many pairs get frames; says whether the driver may ask for that. It may if it knows several pairs, and has set up
    /// those that it asks for (5.1.6.5.6.1).
    fn set_receiving(&mut self, io: &mut Io, queues: &mut Queues, count: u16) -> Result<bool> {
        let Some(running) = self.running.as_mut().filter(|running| running.pairs.len() > 1) else { return Ok(false) };
        let count = usize::from(count);
        let is_set_up = |pair| receive_queue(queues, pair).is_some() && transmit_queue(queues, pair).is_some();
        if !(1..=running.pairs.len()).contains(&count) || !(0..count).all(is_set_up) {
            return Ok(false);
        }
        if running.receiving == count {
            return Ok(true);
        }
        // What is lent is of the pairs as they were.
        self.put_back_buffers(io, queues)?;
        let Some(running) = &mut self.running else { return Ok(false) };
        running.receiving = count;
        for index in count..running.pairs.len() {
            if let Some(queue) = receive_queue(queues, index) {
                // No frame comes there once the driver has the answer, so what came before is shown first.
                queue.notify();
            }
        }
        Ok(true)
    }

    /// Puts back all buffers for frames that are empty, also those that are lent, if they are at hand.
    fn put_back_buffers(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        for (index, pair) in running.pairs.iter_mut().enumerate() {
            if let Some(queue) = receive_queue(queues, index) {
                pair.receiver.put_back(queue)?;
            }
        }
        // What is lent was taken before what was not, and several backends may have it from one queue.
        let mut back = std::mem::take(&mut running.returns);
        back.resize_with(running.pairs.len(), RxReturn::default);
        for (index, backend) in self.backends.iter_mut().enumerate() {
            // One that is not called any more has let go of everything.
            if let Some(back) = back.get_mut(running.pair_of(index)).filter(|_| !backend.is_condemned()) {
                backend.call(io, |backend, io| backend.recall(io, back))?;
            }
        }
        for (index, back) in back.drain(..).enumerate() {
            if let Some(queue) = receive_queue(queues, index) {
                back.put_back(queue);
            }
        }
        running.returns = back;
        Ok(())
    }

    fn take_announcement(&mut self, io: &mut Io) {
        let Some(running) = &self.running else { return };
        if self.handle.take_announce() && running.announces {
            self.announcing = true;
            io.info_changed();
        }
    }

    /// The network is another.
    fn announce_again(&mut self) {
        self.announcing |= self.running.as_ref().is_some_and(|running| running.announces);
    }

    /// What the card needs of a backend.
    fn need(&self, backend: usize) -> Need {
        let Some(running) = self.running.as_ref().filter(|_| self.link_is_up()) else { return Need::default() };
        let pair = |index: usize| running.pairs.get(index);
        Need {
            room: self.receive_limiter.until().is_none()
                && pair(running.pair_of(backend)).is_some_and(|pair| pair.receiver.has_room()),
            backlog: pair(backend).is_some_and(|pair| pair.transmitter.has_sendable()),
        }
    }
}

impl VirtioDevice for Net {
    fn info(&self) -> DeviceInfo {
        use feature::{
            CSUM, CTRL_VQ, GUEST_ANNOUNCE, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, HOST_ECN, HOST_TSO4,
            HOST_TSO6, MAC, MQ, MRG_RXBUF, MTU, STATUS,
        };
        let mtu = if self.mtu.is_some() { 1 << MTU } else { 0 };
        let several = if self.backends.len() > 1 { 1 << MQ } else { 0 };
        let link = 1 << STATUS | 1 << CTRL_VQ | 1 << GUEST_ANNOUNCE;
        let mut queue_sizes = vec![FRAME_QUEUE_SIZE; self.backends.len().saturating_mul(2)];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        DeviceInfo::new(device_id::NET, &queue_sizes)
            .features(1 << MAC | 1 << MRG_RXBUF | link | mtu | several | self.info.offloads.features())
            // What depends on something stands together with it (5.1.3.1).
            .requires(GUEST_TSO4, 1 << GUEST_CSUM)
            .requires(GUEST_TSO6, 1 << GUEST_CSUM)
            .requires(GUEST_ECN, 1 << GUEST_TSO4 | 1 << GUEST_TSO6)
            .requires(HOST_TSO4, 1 << CSUM)
            .requires(HOST_TSO6, 1 << CSUM)
            .requires(HOST_ECN, 1 << HOST_TSO4 | 1 << HOST_TSO6)
            .requires(GUEST_ANNOUNCE, 1 << CTRL_VQ)
            .requires(MQ, 1 << CTRL_VQ)
    }

    fn config(&mut self) -> Vec<u8> {
        let was_up = self.info.link_up;
        let is_up =
            |backend: &Guarded<dyn NicBackend>| backend.look(|backend| backend.info().link_up).unwrap_or(was_up);
        self.info.link_up = self.backends.iter().all(is_up);
        let link = if self.link_is_up() { STATUS_LINK_UP } else { 0 };
        let announce = if self.announcing { STATUS_ANNOUNCE } else { 0 };
        let mut config = self.mac.to_vec();
        config.extend((link | announce).to_le_bytes());
        config.extend(self.pair_count().to_le_bytes());
        config.extend(self.mtu.unwrap_or(0).to_le_bytes());
        config
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.handle_token = Some(token);
        self.handle.set_waker(io.waker(token));
        let token = io.token();
        self.limit_token = Some(token);
        self.receive_limiter.set_waker(io.waker(token));
        let mut meter = Meter::new();
        for backend in &mut self.backends {
            backend.call(io, |backend, io| backend.attach(io))??;
            backend.ask(|backend| backend.metrics(&mut meter))?;
        }
        self.handle.set_meter(meter);
        Ok(())
    }

    fn activate(&mut self, io: &mut Io, activation: Activation) -> Result<()> {
        let features = activation.features;
        let guest = Offloads::to_guest(features);
        for backend in &mut self.backends {
            backend.call(io, |backend, _| backend.negotiate(guest))??;
        }
        let pair = || Pair {
            receiver: Receiver::new(activation.has(feature::MRG_RXBUF), guest),
            transmitter: Transmitter::new(Offloads::to_host(features), self.send_limiter(io)),
        };
        let count = if activation.has(feature::MQ) { self.backends.len() } else { 1 };
        let pairs: Vec<_> = std::iter::repeat_with(pair).take(count).collect();
        let mut receiving = 1;
        if let Some(state) = &activation.state {
            (self.announcing, receiving) = restore(state, count)?;
            // A driver that knows of no link would only lose frames.
            if activation.has(feature::STATUS) {
                self.away.begin(io);
            }
        }
        let (commands, announces) = (activation.has(feature::CTRL_VQ), activation.has(feature::GUEST_ANNOUNCE));
        let returns = Vec::with_capacity(pairs.len());
        self.running = Some(Running { pairs, receiving, commands, announces, returns });
        // What the host program asked for before is for this driver, if for any.
        self.take_announcement(io);
        Ok(())
    }

    fn process_queue(&mut self, io: &mut Io, queues: &mut Queues, index: u16) -> Result<()> {
        self.away.tell(io);
        let Some(running) = &self.running else { return Ok(()) };
        match running.role(index) {
            Role::Receive(pair) => self.receive(io, queues, Some(pair)),
            Role::Transmit(pair) => self.transmit(io, queues, pair),
            Role::Control => self.control(io, queues, index),
            Role::Unused => Ok(()),
        }
    }

    fn config_read(&mut self, io: &mut Io) {
        self.away.seen(io);
    }

    fn wants(&self, wants: &mut Wants) {
        for (index, backend) in self.backends.iter().enumerate() {
            let need = self.need(index);
            backend.look(|backend| backend.wants(need, wants));
            if backend.has_news() {
                wants.again();
            }
        }
        self.want_deadlines(wants);
        if let (Some(end), Some(token)) = (self.away.until(), self.handle_token) {
            wants.deadline(token, end);
        }
    }

    fn woken(&mut self, io: &mut Io, queues: &mut Queues, event: &Event) -> Result<()> {
        // One that is gone was told when that happened.
        let is_gone = |backend: &Guarded<dyn NicBackend>| backend.is_condemned() && !backend.has_news();
        if self.backends.iter().any(is_gone) {
            return Ok(());
        }
        if self.away.end_in_time(io) {
            self.announce_again();
        }
        if self.handle_token == Some(event.token) {
            self.take_announcement(io);
            if !self.link_is_up() {
                // What is lent would be filled meanwhile, and the frames would come when it is up again.
                self.put_back_buffers(io, queues)?;
            }
            // The link may be another.
            io.info_changed();
        } else if self.limit_token == Some(event.token) {
            self.look_at_limits(io, event.cause == Cause::Woken);
        } else {
            for backend in &mut self.backends {
                backend.call(io, |backend, io| backend.woken(io, event))?;
            }
        }
        self.receive(io, queues, None)?;
        self.transmit_backlogs(io, queues)
    }

    fn quiesce(&mut self, io: &mut Io, queues: &mut Queues) -> Result<()> {
        self.receive_limiter.rest();
        let Some(running) = &mut self.running else { return Ok(()) };
        for (index, pair) in running.pairs.iter_mut().enumerate() {
            if let Some(queue) = transmit_queue(queues, index) {
                pair.transmitter.put_back(queue)?;
            }
        }
        self.put_back_buffers(io, queues)
    }

    fn reset(&mut self, io: &mut Io) {
        // The queues are gone, so what comes back is dropped.
        for backend in self.backends.iter_mut().filter(|backend| !backend.is_condemned()) {
            if backend.call(io, |backend, io| backend.recall(io, &mut RxReturn::default())).is_err() {
                backend.tell_later();
            }
        }
        self.running = None;
        self.receive_limiter.rest();
        let was_away = std::mem::take(&mut self.away).is_away();
        if std::mem::take(&mut self.announcing) || was_away {
            io.info_changed();
        }
    }

    fn save(&self) -> Result<DeviceState> {
        let receiving = self.running.as_ref().map_or(1, |running| running.receiving);
        let [low, high] = u16::try_from(receiving).unwrap_or(1).to_le_bytes();
        Ok(DeviceState::new(STATE_VERSION, [u8::from(self.announcing), low, high]))
    }
}

/// Whether an announcement is outstanding, and how many pairs of `count` get frames.
fn restore(state: &DeviceState, count: usize) -> Result<(bool, usize)> {
    let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
    let (announcing, receiving) = match (state.version, state.bytes.as_slice()) {
        (1, [announcing @ (0 | 1)]) => (*announcing, 1),
        (STATE_VERSION, [announcing @ (0 | 1), low, high]) => (*announcing, u16::from_le_bytes([*low, *high]).into()),
        (version, bytes) => {
            let len = bytes.len();
            return refused(format!(
                "the saved state of a NIC is of version {version} and {len} bytes, known are 1 with 1 and 2 with 3"
            ));
        }
    };
    if !(1..=count).contains(&receiving) {
        return refused(format!(
            "{receiving} pairs of queues of a NIC get frames in its saved state, allowed are 1 to {count}"
        ));
    }
    Ok((announcing == 1, receiving))
}

#[cfg(test)]
#[path = "device_test.rs"]
mod tests;

#[cfg(test)]
#[path = "pairs_test.rs"]
mod pairs_tests;

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_tests;
