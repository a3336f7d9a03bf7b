//! The open seam under a NIC: where frames come from and go to. It knows no queue.

use super::offloads::Offloads;
use super::receive::RxBatch;
use super::transmit::TxBatch;
use crate::error::Result;
use crate::event::{Event, Io, Wants};

/// A source and sink of Ethernet frames. Implement it to connect a NIC to something of your own, or to stack a layer (a
/// filter, a limit, a capture) on another backend.
///
/// # Rules
/// - **One caller.** All calls but [`info`](Self::info) come from the I/O thread that owns the NIC, one at a time. None may
///   block: what has to wait says so in [`wants`](Self::wants), or has another thread use a [`Waker`](crate::event::Waker).
/// - **Turns.** [`receive`](Self::receive) and [`send`](Self::send) stop soon after [`Io::spent`] says so, and are called
///   again in the next turn.
/// - **Offloads.** The guest only sends frames that leave undone what the backend [offers](NicInfo::offloads) to do. A
///   backend only delivers frames that leave undone what the guest has [negotiated](Self::negotiate).
/// - **Loss** is allowed, as on any wire: a frame that has no room, or cannot be sent, is dropped, and nobody waits for it.
/// - A backend that panics is **never called again**: its NIC fails, nothing else does.
///
/// `examples/loopback_nic` has one of 150 lines, and `testing::NicConformance` (feature `test-util`) tries whether one keeps to
/// the rules.
pub trait NicBackend: Send {
    /// What the link is like. Asked before it is attached, and again each time that the backend says that
    /// [something changed](Io::info_changed): whether the link is up may change while the VM runs, the rest may not. Never
    /// blocks.
    fn info(&self) -> NicInfo;

    /// The first call on the thread that owns the NIC: makes tokens and wakers.
    ///
    /// # Errors
    /// If the backend cannot work; then there will be no VM.
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// The guest's driver is ready, and copes with these offloads in frames that it receives.
    ///
    /// # Errors
    /// If the backend cannot keep to them; the driver is told that the device needs a reset.
    fn negotiate(&mut self, _guest: Offloads) -> Result<()> {
        Ok(())
    }

    /// Delivers the frames that have come, as far as there is room. Called when the guest has made room, and after each
    /// event.
    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch);

    /// Sends the frames that the guest has given, in order. What is left is offered again after the next event.
    fn send(&mut self, io: &mut Io, frames: &mut TxBatch);

    /// Says what the backend waits for. Asked after each turn.
    fn wants(&self, _need: Need, _wants: &mut Wants) {}

    /// Something happened. Events of others come by, too. [`receive`](Self::receive) follows.
    fn woken(&mut self, _io: &mut Io, _event: &Event) {}
}

/// So that a layer can be put on a backend that is chosen at run time.
impl<B: NicBackend + ?Sized> NicBackend for Box<B> {
    fn info(&self) -> NicInfo {
        (**self).info()
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        (**self).attach(io)
    }

    fn negotiate(&mut self, guest: Offloads) -> Result<()> {
        (**self).negotiate(guest)
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        (**self).receive(io, frames);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        (**self).send(io, frames);
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        (**self).wants(need, wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        (**self).woken(io, event);
    }
}

/// What a link is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicInfo {
    /// Whether it is up. The default is that it is.
    pub link_up: bool,
    /// What the backend does for the guest in the frames that the guest sends, and may leave to the guest in the frames that
    /// it receives. The default is none.
    pub offloads: Offloads,
}

impl Default for NicInfo {
    fn default() -> Self {
        Self { link_up: true, offloads: Offloads::NONE }
    }
}

/// What the NIC needs of its backend now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Need {
    /// The guest has room for frames: one that comes is to wake the NIC.
    pub room: bool,
    /// A frame of the guest waits: room to send it is to wake the NIC.
    pub backlog: bool,
}
