//! What a fork in use builds on: another disk with the same data can take its place, without the guest noticing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use crate::block::{DiskBackend, DiskInfo, DiskStatus, Done, Operation, Slab, Tag};
use crate::error::{Error, Result};
use crate::event::{Event, Io, Token, Waker, Wants};
use crate::meter::Meter;
use crate::sys::{lock, lock_if_free};
use crate::volume::refused;

/// The most operations in flight: more than any disk has.
const IN_FLIGHT: usize = 1280;

/// Passes everything on to the present disk, until another one is offered and nothing is in flight.
pub(super) struct Below {
    disk: Box<dyn DiskBackend>,
    swaps: Arc<Swaps>,
    token: Option<Token>,
    /// Whose tags those below are, and whether that is a flush.
    in_flight: Slab<(Tag, bool)>,
    /// It has attached.
    next: Option<Box<Offer>>,
}

/// How other threads reach it.
#[derive(Default)]
pub(super) struct Swaps {
    offer: Mutex<Option<Box<Offer>>>,
    waker: Mutex<Option<Waker>>,
    /// What was written to it before it lay below is in its file.
    is_settled: AtomicBool,
}

struct Offer {
    disk: Box<dyn DiskBackend>,
    said: SyncSender<Swapped>,
}

/// What is said of an offer. Disks are dropped where this arrives, and not on the I/O thread.
pub(super) enum Swapped {
    /// It took the place of this one.
    Done(#[expect(dead_code, reason = "it is dropped where it arrives")] Box<dyn DiskBackend>),
    /// It cannot, and is given back.
    Refused(Error, #[expect(dead_code, reason = "it is dropped where it arrives")] Box<dyn DiskBackend>),
}

impl Swaps {
    /// Whether the files have all that the disk has, so that they may be opened once more.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::SeqCst)
    }

    /// Offers a disk with the same data, which takes the place of one that is still on offer.
    pub(super) fn offer(&self, disk: Box<dyn DiskBackend>) -> Receiver<Swapped> {
        let (said, heard) = sync_channel(2);
        let before = lock(&self.offer).replace(Box::new(Offer { disk, said }));
        drop(before);
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
        heard
    }

    /// Takes back what was offered and is not taken yet.
    pub(super) fn withdraw(&self) {
        let offer = lock(&self.offer).take();
        drop(offer);
    }
}

impl Below {
    /// A disk that nobody writes to.
    pub(super) fn new(disk: Box<dyn DiskBackend>, swaps: Arc<Swaps>) -> Self {
        swaps.is_settled.store(true, Ordering::SeqCst);
        Self { disk, swaps, token: None, in_flight: Slab::new(IN_FLIGHT), next: None }
    }

    /// A disk that has attached, and was written to until now: it is settled once it was flushed.
    pub(super) fn attached(disk: Box<dyn DiskBackend>, swaps: Arc<Swaps>, io: &mut Io) -> Self {
        let mut below = Self::new(disk, swaps);
        below.swaps.is_settled.store(false, Ordering::SeqCst);
        below.listen(io);
        below
    }

    fn listen(&mut self, io: &mut Io) {
        let token = io.token();
        self.token = Some(token);
        *lock(&self.swaps.waker) = Some(io.waker(token));
    }

    fn take_offer(&mut self, io: &mut Io) {
        let Some(mut offer) = lock_if_free(&self.swaps.offer).and_then(|mut slot| slot.take()) else {
            // Whoever has it wakes us afterwards.
            return;
        };
        let fits = check(&self.disk.info(), &offer.disk.info());
        match fits.and_then(|()| offer.disk.attach(io)) {
            Ok(()) => self.next = Some(offer),
            Err(error) => {
                let Offer { disk, said } = *offer;
                let _ = said.try_send(Swapped::Refused(error, disk));
            }
        }
    }

    /// Whether something may be begun: nothing is until the disk on offer is in its place.
    fn may_begin(&mut self) -> bool {
        if !self.in_flight.is_empty() {
            return self.next.is_none();
        }
        if let Some(offer) = self.next.take() {
            let Offer { disk, said } = *offer;
            let before = std::mem::replace(&mut self.disk, disk);
            // If nobody hears it, it is dropped here.
            let _ = said.try_send(Swapped::Done(before));
        }
        true
    }
}

/// The guest was told of a disk that lies over this one.
fn check(has: &DiskInfo, gets: &DiskInfo) -> Result<()> {
    let fits = gets.capacity == has.capacity
        && gets.block_size == has.block_size
        && gets.max_transfer >= has.max_transfer
        && gets.max_segments >= has.max_segments;
    if fits {
        return Ok(());
    }
    let message = format!(
        "what lies below has {} bytes in blocks of {}, and would have {} in blocks of {}",
        has.capacity, has.block_size, gets.capacity, gets.block_size
    );
    Err(refused(message))
}

impl DiskBackend for Below {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.listen(io);
        if let Some(next) = &mut self.next {
            next.disk.attach(io)?;
        }
        self.disk.attach(io)?;
        self.take_offer(io);
        Ok(())
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if !self.may_begin() {
            return Err(operation);
        }
        let is_flush = matches!(operation, Operation::Flush);
        let Ok(own) = self.in_flight.insert((tag, is_flush)) else { return Err(operation) };
        let submitted = self.disk.submit(io, own, operation);
        submitted.inspect_err(|_| _ = self.in_flight.remove(own))
    }

    fn commit(&mut self, io: &mut Io) {
        self.disk.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        let Some(mut done) = self.disk.completed(io) else {
            self.may_begin();
            return None;
        };
        // A rule was broken below if it is none of ours. Nobody above knows that tag, so the disk will say so.
        let (tag, is_flush) = self.in_flight.remove(done.tag).unwrap_or((Tag::from_bits(u64::MAX), false));
        done.tag = tag;
        if is_flush && done.result.is_ok() {
            self.swaps.is_settled.store(true, Ordering::SeqCst);
        }
        Some(done)
    }

    fn cancel(&mut self, io: &mut Io) {
        self.disk.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.disk.refresh(io);
    }

    fn wants(&self, wants: &mut Wants) {
        self.disk.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.token == Some(event.token) {
            self.take_offer(io);
            self.may_begin();
            return;
        }
        if let Some(next) = &mut self.next {
            next.disk.woken(io, event);
        }
        self.disk.woken(io, event);
    }

    fn status(&self) -> DiskStatus {
        self.disk.status()
    }

    fn metrics(&self, meter: &mut Meter) {
        self.disk.metrics(meter);
    }
}
