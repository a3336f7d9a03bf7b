//! The I/O thread, and the one vocabulary for what its participants wait for and what they are told.
//!
//! A *participant* is what lives on an I/O thread: a console, or a device with its backend and the layers of that. The thread
//! owns it and is the only one that calls it, so it needs no lock. It says what it [wants](Wants) to wait for (descriptors, the
//! earliest deadline), and gets a turn when that [happens](Event). With each call it is lent an [`Io`], which gives it
//! tokens, wakers and buffers, and says when its turn is [over](Io::spent). Other threads reach it by a [`Waker`].
//!
//! Before the thread sleeps, it looks for more to do for a while, if more came soon before ([`IoThread::set_polling`]). Meanwhile
//! drivers need not ring. A thread has one io_uring for the files of all its disks. It makes the ring when the first disk asks for
//! it, and hands over what was begun once in each round.
//!
//! # What a callback may do
//! Code of yours that an I/O thread calls is a *callback*: a [`DiskBackend`](crate::block::DiskBackend), a
//! [`NicBackend`](crate::net::NicBackend), a [`VirtioDevice`](crate::virtio::VirtioDevice), the function of a
//! [`Console::callback`](crate::Console::callback), and, if a callback drops them, whatever these own. Others wait for the thread
//! meanwhile, so a callback must not block. It may use the handle of any VM, also of its own, as follows:
//!
//! | Call | In a callback |
//! |---|---|
//! | `status`, `name`, `ended_fd`, `threads`, `metrics`, `device_failures`, `measure_turns`, `write_console`, `console_status`, `console_dropped`, `disk_handle`, `nic_handle`, `wait_timeout(0)`, `request_shutdown`, `request_stop`, `discard`, `discarded`, `set_discard_on_drop` | as anywhere: they never block for long |
//! | `start` | as anywhere |
//! | `stop` | works, and may block for up to 100 ms |
//! | dropping a VM | the same as `discard` |
//! | `resume` | works, but gives [`InvalidState`](crate::ErrorKind::InvalidState) while another thread is pausing the VM |
//! | `pause`, `pause_within`, `wait`, `wait_timeout`, `DiskHandle::replace` | `InvalidState` |
//! | the other calls of `DiskHandle`, those of `NicHandle` | as anywhere |
//! | building a VM | blocks as anywhere; `InvalidState` if this very thread is to serve it |
//! | `MmioTransport::pause`, `MmioTransport::save` | `InvalidState` on the thread that serves the device |
//! | dropping an `MmioTransport` or the last handle of an [`IoThread`] | does not wait for a device or thread to end: that follows |
//!
//! The functions of [`on_thread_start`](crate::VmBuilder::on_thread_start) and [`log`](crate::VmBuilder::log) are called on the threads
//! of vCPUs, too. There the same holds, but that a `stop` from the former, of its own VM, gives
//! [`Timeout`](crate::ErrorKind::Timeout): it waits for the thread that calls.
//!
//! A callback that panics harms its own console or device alone, and is not called again: a console's function, a backend, and a
//! [`VirtioDevice`](crate::virtio::VirtioDevice) are dropped. [`Vm::device_failures`](crate::Vm::device_failures) and
//! [`Vm::console_status`](crate::Vm::console_status) tell.
//!
//! # Turns
//! A turn is over after [`TURN_TIME`] or [`TURN_BYTES`]. So a participant that has something to do waits at most for one turn
//! of each of the others.

mod ending;
mod identity;
mod io;
#[cfg(any(test, feature = "test-util"))]
mod lender;
mod metrics;
mod participant;
mod place;
mod polling;
mod reactor;
mod ring;
mod thread;
mod token;
mod waiting;
mod wake_set;
mod waker;
mod wants;

pub use io::{Io, TURN_BYTES, TURN_TIME};
#[cfg(any(test, feature = "test-util"))]
pub(crate) use lender::Lender;
pub use metrics::IoThreadMetrics;
pub(crate) use participant::Participant;
pub use polling::PollingStats;
pub use thread::IoThread;
pub(crate) use thread::{Membership, Placement};
pub use token::{Cause, Event, Token};
pub use waker::Waker;
pub use wants::{Interest, Wants};
