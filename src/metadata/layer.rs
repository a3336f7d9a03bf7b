//! The layer between a card and its backend that takes out what the guest sends to the service.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use super::link::is_ours;
use super::service::Metadata;
use super::stack::{LONGEST, Stack};
use crate::error::Result;
use crate::event::{Event, Io, Token, Wants};
use crate::meter::Meter;
use crate::net::{Need, Nic, NicBackend, NicInfo, Offloads, RxBatch, RxReturn, TxBatch, TxFrame, VnetHeader};
use crate::sys::lock;
use crate::sys::sync::Mutex;

/// To take a frame in takes as long as moving so many bytes.
const CHARGE: u64 = 2048;

impl Nic {
    /// Gives the guest a metadata service on this card. What the guest sends to the service's address goes to the service, and no
    /// further; all other frames pass as before. The service's settings are those that `metadata` has now; its document may change at
    /// any time.
    ///
    /// The service works on the card's own thread, and never blocks. A card with several pairs of queues has one service for all of
    /// them. If the service is put on a card twice, the later one takes what both would.
    #[must_use]
    pub fn metadata(self, metadata: &Metadata) -> Self {
        let stack = Arc::new(Mutex::new(None));
        let metadata = metadata.clone();
        let mut leads = true;
        self.quick_layer(move |below| {
            let leads = std::mem::take(&mut leads);
            let (metadata, stack) = (metadata.clone(), Arc::clone(&stack));
            let address = metadata.settings.address;
            Box::new(Layer { below, metadata, address, stack, leads, token: None, frame: Vec::new() })
        })
    }
}

struct Layer {
    below: Box<dyn NicBackend>,
    metadata: Metadata,
    address: Ipv4Addr,
    /// Made when the first pair of queues is attached, and shared by all of one card. One thread calls them all, so it is never waited
    /// for.
    stack: Arc<Mutex<Option<Stack>>>,
    /// The guest gets the service's frames by this pair of queues.
    leads: bool,
    token: Option<Token>,
    /// Storage for the frame that is taken in.
    frame: Vec<u8>,
}

impl NicBackend for Layer {
    fn info(&self) -> NicInfo {
        self.below.info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        if self.leads {
            *lock(&self.stack) = Some(Stack::new(self.metadata.clone(), Instant::now())?);
            self.token = Some(io.token());
        }
        self.below.attach(io)
    }

    fn negotiate(&mut self, guest: Offloads) -> Result<()> {
        if let Some(stack) = &mut *lock(&self.stack) {
            stack.reset();
        }
        self.below.negotiate(guest)
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        if self.leads
            && let Some(stack) = &mut *lock(&self.stack)
        {
            answer(stack, io, frames);
        }
        self.below.receive(io, frames);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        let Self { below, address, stack, frame: storage, .. } = self;
        let takes = |io: &mut Io, frame: &TxFrame| {
            let ours = is_ours(frame, *address);
            if ours {
                take(io, frame, storage, &mut lock(stack));
            }
            ours
        };
        frames.without(takes, |frames| below.send(io, frames));
    }

    fn recall(&mut self, io: &mut Io, back: &mut RxReturn) {
        self.below.recall(io, back);
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        if let Some(token) = self.token.filter(|_| need.room) {
            let due = lock(&self.stack).as_ref().and_then(Stack::due);
            match due {
                Some(at) if at <= Instant::now() => wants.again(),
                Some(at) => wants.deadline(token, at),
                None => {}
            }
        }
        self.below.wants(need, wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        // The service goes on in `receive`, which follows.
        self.below.woken(io, event);
    }

    fn metrics(&self, meter: &mut Meter) {
        if let Some(stack) = lock(&self.stack).as_ref().filter(|_| self.leads) {
            stack.counters().tell(meter);
        }
        self.below.metrics(meter);
    }
}

/// Copies a frame out of the guest's memory, and takes it in. What is too long for a client that keeps to TCP's window is lost.
fn take(io: &mut Io, frame: &TxFrame, storage: &mut Vec<u8>, stack: &mut Option<Stack>) {
    io.charge(CHARGE);
    let len = usize::try_from(frame.len()).unwrap_or(usize::MAX);
    let Some(stack) = stack.as_mut().filter(|_| len <= LONGEST) else { return };
    storage.resize(len, 0);
    if frame.data().copy_out(0, storage).is_ok() {
        stack.take(storage, Instant::now());
    }
}

/// Gives the guest what the service has for it, as long as there is room: no more than may wait, so that other frames have their turn.
fn answer(stack: &mut Stack, io: &mut Io, frames: &mut RxBatch) {
    let now = Instant::now();
    if stack.due().is_some_and(|due| due <= now) && frames.has_room(io) {
        io.charge(CHARGE);
        stack.go_on(now);
    }
    while let Some(frame) = stack.next()
        && frames.has_room(io)
    {
        // A frame that is lost is sent again.
        frames.put(io, &VnetHeader::default(), frame);
        stack.done();
    }
}
