//! The interface under a NIC: a backend is where frames come from and go to. It knows no queues.

use super::lend::RxReturn;
use super::offloads::Offloads;
use super::receive::RxBatch;
use super::transmit::TxBatch;
use crate::error::Result;
use crate::event::{Event, Io, Wants};
use crate::meter::Meter;

/// A source and sink of Ethernet frames. Implement it to connect a NIC to something of your own, or to stack a layer (a
/// filter, a limit, a capture) on another backend.
///
/// # Rules
/// - **One caller.** All calls except [`info`](Self::info) come from the I/O thread that owns the NIC, one at a time. None may
///   block: a backend that has to wait says what for in [`wants`](Self::wants), or lets another thread wait and use a
///   [`Waker`](crate::event::Waker). [What a callback may do](crate::event#what-a-callback-may-do) says which calls with a VM's
///   handle it may make.
/// - **Turns.** [`receive`](Self::receive) and [`send`](Self::send) stop soon after [`Io::spent`] says so, and are called
///   again in the next turn.
/// - **Offloads.** The guest only sends frames that leave undone what the backend [offers](NicInfo::offloads) to do. A
///   backend only delivers frames that leave undone what the guest has [negotiated](Self::negotiate).
/// - **Queues.** A backend knows one queue each way. A card with several pairs of queues has [a backend for each
///   pair](super::Nic::backends), all of them called by the same thread, so that a layer need not know how many there are. If the
///   pairs share something, such as a limit, a lock around it is never waited for.
/// - **Loss** is allowed, as on any wire: a frame for which there is no room, or that cannot be sent, may be dropped.
/// - If a backend panics or [gives up](Io::give_up), it is **never called again** but dropped, on a thread made for that. Its NIC fails:
///   the driver is told that the device needs a reset, and again each time that it has reset the device. The host program is told by
///   [`Vm::device_failures`](crate::Vm::device_failures). A panic before the backend has attached is the error of building the VM.
///   Run `testing::NicConformance` over a backend before you use it.
///
/// `examples/loopback_nic` connects two VMs by a backend of less than 150 lines. A layer passes every call that it does not
/// change on to the backend below, and so also all [events](Self::woken) that are not its own.
pub trait NicBackend: Send {
    /// Describes the link. Called before the backend is attached, and again each time that the backend says that
    /// [something changed](Io::info_changed): whether the link is up may change while the VM runs, the rest may not. Must not
    /// block.
    fn info(&self) -> NicInfo;

    /// The first call on the thread that owns the NIC. The backend makes its tokens and wakers here, if it needs any. Building the
    /// VM waits for it, at most for ten seconds.
    ///
    /// # Errors
    /// If the backend cannot work. The VM is not built then.
    fn attach(&mut self, _io: &mut Io) -> Result<()> {
        Ok(())
    }

    /// The guest's driver is ready. Frames that it receives may leave undone what `guest` says, and no more.
    ///
    /// # Errors
    /// If the backend cannot keep to that. The driver is told that the device needs a reset.
    fn negotiate(&mut self, _guest: Offloads) -> Result<()> {
        Ok(())
    }

    /// Delivers the frames that have come, while there is room. Called when the guest has made room, and after each event.
    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch);

    /// Sends the guest's frames, in order. A frame that is not [done](TxBatch::done) at the end of the call is offered again
    /// after the next event.
    fn send(&mut self, io: &mut Io, frames: &mut TxBatch);

    /// The card stands still, or the guest has reset it: the backend gives back [what it was lent](RxBatch::lend) and has not filled, as
    /// far as it is at hand, and drops what was filled and not [delivered](RxBatch::deliver). A pause, a snapshot and a reset wait until
    /// every buffer is given back or dropped, on whatever thread. A backend that borrows nothing leaves this out; a layer passes it on.
    fn recall(&mut self, _io: &mut Io, _back: &mut RxReturn) {}

    /// Says what the backend waits for now. Called after each turn; what is not named is not waited for.
    fn wants(&self, _need: Need, _wants: &mut Wants) {}

    /// Something happened. Events with the tokens of other layers arrive here, too; a backend does nothing about those.
    /// [`receive`](Self::receive) follows.
    fn woken(&mut self, _io: &mut Io, _event: &Event) {}

    /// Hands over the counters that the backend keeps, for [`Vm::metrics`](crate::Vm::metrics). Called once, after the backend was
    /// attached.
    fn metrics(&self, _meter: &mut Meter) {}
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

    fn recall(&mut self, io: &mut Io, back: &mut RxReturn) {
        (**self).recall(io, back);
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        (**self).wants(need, wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        (**self).woken(io, event);
    }

    fn metrics(&self, meter: &mut Meter) {
        (**self).metrics(meter);
    }
}

/// Describes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicInfo {
    /// Whether the link is up, which is the default.
    pub link_up: bool,
    /// The work that the guest may leave to the backend in the frames that it sends, and that the backend may leave to the guest
    /// in the frames that it delivers. The default is [none](Offloads::NONE).
    pub offloads: Offloads,
}

impl NicInfo {
    /// What two backends of one card have in common.
    pub(super) fn common(self, other: Self) -> Self {
        Self { link_up: self.link_up && other.link_up, offloads: self.offloads.common(other.offloads) }
    }
}

impl Default for NicInfo {
    fn default() -> Self {
        Self { link_up: true, offloads: Offloads::NONE }
    }
}

/// What the NIC needs from its backend now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Need {
    /// The guest has room for frames, so the backend should wait for the next one to come.
    pub room: bool,
    /// A frame of the guest waits to be sent, so the backend should wait for room.
    pub backlog: bool,
}
