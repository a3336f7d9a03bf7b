//! The disk of a volume in use: a fork can be put on top of it while it serves a guest.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::below::{Below, Swaps};
use super::cow::{EmptyLayer, Settled};
use super::encrypted::Encrypted;
use crate::block::{DiskBackend, DiskInfo, DiskStatus, Done, FileBackend, Operation, Tag};
use crate::error::{Error, Result};
use crate::event::{Event, Io, Token, Waker, Wants};
use crate::meter::Meter;
use crate::sys::{lock, lock_if_free};
use crate::volume::refused;

type Fork = EmptyLayer<Encrypted<FileBackend>>;

/// Passes everything on to the present disk, until a fork is to go on top of it.
pub(super) struct Live {
    disk: Box<dyn DiskBackend>,
    orders: Arc<Orders>,
    token: Option<Token>,
    /// What the present disk was given and has not completed.
    in_flight: usize,
    /// It has attached, and goes on top once that is ordered.
    next: Option<Box<Offer>>,
    /// When the order was seen: nothing new is begun until the fork is on top.
    since: Option<Instant>,
    /// What waits for the disk to be larger.
    growing: Option<Growing>,
}

/// How other threads reach it.
#[derive(Default)]
pub(super) struct Orders {
    offer: Mutex<Option<Box<Offer>>>,
    growing: Mutex<Option<Growing>>,
    waker: Mutex<Option<Waker>>,
}

/// Whoever waits until the disk has so many bytes, for which its file has room already.
struct Growing {
    capacity: u64,
    said: SyncSender<()>,
}

/// A fork that is to go on top.
pub(super) struct Offer {
    fork: Fork,
    order: Arc<AtomicU8>,
    said: SyncSender<Said>,
    settled: Settled,
    /// Of what lies below it then.
    swaps: Arc<Swaps>,
}

/// What an offer's order may be.
const NONE: u8 = 0;
const ON_TOP: u8 = 1;
const CANCELLED: u8 = 2;

/// What is said of an offer.
pub(super) enum Said {
    /// It can go on top from now on.
    Attached,
    /// It cannot, and is to be dropped elsewhere.
    Refused(Error, #[expect(dead_code, reason = "it is dropped where it arrives")] Box<Offer>),
    /// It is on top; the disk began nothing for so long before that.
    OnTop(Duration),
    /// It was cancelled, and is to be dropped elsewhere.
    Back(#[expect(dead_code, reason = "it is dropped where it arrives")] Box<Offer>),
}

/// An offer that was made, to whoever made it.
pub(super) struct Offered {
    orders: Arc<Orders>,
    order: Arc<AtomicU8>,
}

/// What is heard of it.
pub(super) struct News {
    pub(super) said: Receiver<Said>,
    /// What lies under the fork is stable, or cannot be made so.
    pub(super) settled: Receiver<io::Result<()>>,
}

impl Orders {
    /// Offers a fork, which takes the place of one that is still on offer.
    pub(super) fn offer(self: &Arc<Self>, fork: Fork, swaps: Arc<Swaps>) -> (Offered, News) {
        // More than are said of one.
        let (said, heard) = sync_channel(4);
        let (settled, is_settled) = sync_channel(1);
        let order = Arc::new(AtomicU8::new(NONE));
        let offer = Offer { fork, order: Arc::clone(&order), said, settled: Settled(settled), swaps };
        let before = lock(&self.offer).replace(Box::new(offer));
        drop(before);
        self.wake();
        (Offered { orders: Arc::clone(self), order }, News { said: heard, settled: is_settled })
    }

    /// Takes back what was offered and is not attached yet.
    pub(super) fn withdraw(&self) {
        let offer = lock(&self.offer).take();
        drop(offer);
    }

    /// Has the disk look at its size; says when it has so many bytes. Whoever waited before hears no more.
    pub(super) fn grows(&self, capacity: u64) -> Receiver<()> {
        let (said, heard) = sync_channel(1);
        let before = lock(&self.growing).replace(Growing { capacity, said });
        drop(before);
        self.wake();
        heard
    }

    fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }
}

impl Offered {
    /// Has the fork go on top before anything else is begun. Never blocks.
    pub(super) fn order(&self) {
        self.order.store(ON_TOP, Ordering::SeqCst);
        self.orders.wake();
    }

    /// Has the fork dropped. Never blocks.
    pub(super) fn cancel(&self) {
        self.order.store(CANCELLED, Ordering::SeqCst);
        self.orders.wake();
    }
}

impl Live {
    pub(super) fn new(disk: Box<dyn DiskBackend>) -> Self {
        Self { disk, orders: Arc::default(), token: None, in_flight: 0, next: None, since: None, growing: None }
    }

    pub(super) fn orders(&self) -> Arc<Orders> {
        Arc::clone(&self.orders)
    }

    /// Takes what is on offer, unless another one is ordered already, which comes first.
    fn take_offer(&mut self, io: &mut Io) {
        if self.order() == ON_TOP {
            return;
        }
        let Some(mut slot) = lock_if_free(&self.orders.offer) else {
            // Whoever has it wakes us afterwards.
            return;
        };
        let Some(mut offer) = slot.take() else { return };
        drop(slot);
        let fits = check(&self.disk.info(), &offer.fork.info());
        let (said, answer) = match fits.and_then(|()| offer.fork.attach(io)) {
            Ok(()) => {
                let said = offer.said.clone();
                // One that nobody wants any more was not written to.
                self.next = Some(offer);
                (said, Said::Attached)
            }
            Err(error) => (offer.said.clone(), Said::Refused(error, offer)),
        };
        let _ = said.try_send(answer);
    }

    /// Looks at the size if somebody waits for it.
    fn take_growth(&mut self, io: &mut Io) {
        if let Some(growing) = lock_if_free(&self.orders.growing).and_then(|mut slot| slot.take()) {
            self.growing = Some(growing);
            self.disk.refresh(io);
            self.tell_growth();
        }
    }

    fn tell_growth(&mut self) {
        let capacity = self.disk.info().capacity;
        if let Some(growing) = self.growing.take_if(|growing| growing.capacity <= capacity) {
            let _ = growing.said.try_send(());
        }
    }

    fn order(&self) -> u8 {
        self.next.as_ref().map_or(NONE, |next| next.order.load(Ordering::SeqCst))
    }

    /// Gives a fork back that is not to go on top.
    fn drop_cancelled(&mut self) {
        if self.order() == CANCELLED
            && let Some(offer) = self.next.take()
        {
            let said = offer.said.clone();
            let _ = said.try_send(Said::Back(offer));
        }
    }

    /// Puts the fork on top if that is ordered and nothing is in flight; says whether the disk may begin something.
    fn may_begin(&mut self, io: &mut Io) -> bool {
        if self.order() != ON_TOP {
            return true;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.in_flight > 0 {
            return false;
        }
        let Some(offer) = self.next.take() else { return true };
        let Offer { fork, said, settled, swaps, .. } = *offer;
        let base = std::mem::replace(&mut self.disk, Box::new(Nothing));
        let base = Below::attached(base, swaps, io);
        self.disk = Box::new(fork.on_top_of(base, settled, io));
        self.since = None;
        // Its counters are others from now on.
        io.info_changed();
        let _ = said.try_send(Said::OnTop(since.elapsed()));
        self.take_offer(io);
        if self.growing.is_some() {
            self.disk.refresh(io);
            self.tell_growth();
        }
        true
    }
}

/// A guest is told of a disk's blocks and the largest operation once.
fn check(has: &DiskInfo, gets: &DiskInfo) -> Result<()> {
    if gets.capacity < has.capacity {
        let message = format!("it has {} bytes, and the disk in use has {}", gets.capacity, has.capacity);
        return Err(refused(message));
    }
    if gets.block_size > has.block_size || gets.max_transfer < has.max_transfer || gets.max_range < has.max_range {
        let message = format!(
            "it has blocks of {} bytes and takes {} at once, the disk in use has blocks of {} and takes {}",
            gets.block_size, gets.max_transfer, has.block_size, has.max_transfer
        );
        return Err(refused(message));
    }
    Ok(())
}

impl DiskBackend for Live {
    fn info(&self) -> DiskInfo {
        self.disk.info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        *lock(&self.orders.waker) = Some(io.waker(token));
        if let Some(next) = &mut self.next {
            next.fork.attach(io)?;
        }
        self.disk.attach(io)?;
        self.take_offer(io);
        self.take_growth(io);
        Ok(())
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if self.next.is_some() && !self.may_begin(io) {
            return Err(operation);
        }
        self.disk.submit(io, tag, operation)?;
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(())
    }

    fn commit(&mut self, io: &mut Io) {
        self.disk.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        if let Some(done) = self.disk.completed(io) {
            self.in_flight = self.in_flight.saturating_sub(1);
            return Some(done);
        }
        if self.next.is_some() {
            self.may_begin(io);
        }
        if self.growing.is_some() {
            self.tell_growth();
        }
        None
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
            self.drop_cancelled();
            self.take_offer(io);
            self.take_growth(io);
            self.may_begin(io);
            return;
        }
        if let Some(next) = &mut self.next {
            next.fork.woken(io, event);
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

/// In the disk's place for a moment.
struct Nothing;

impl DiskBackend for Nothing {
    fn info(&self) -> DiskInfo {
        DiskInfo::new(4096)
    }

    fn submit(&mut self, _: &mut Io, _: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        Err(operation)
    }

    fn completed(&mut self, _: &mut Io) -> Option<Done> {
        None
    }
}
