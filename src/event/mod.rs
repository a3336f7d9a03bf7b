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
