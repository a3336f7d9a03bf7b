//! An [`Io`] for backends and queues, without an I/O thread.

use std::time::Duration;

use crate::event::{Event, Io, Lender, Wants};

/// Lends an [`Io`] to code under test, call by call, and waits for what that code wants. It takes the place of an I/O thread, for
/// one participant.
///
/// ```
/// use std::time::{Duration, Instant};
/// use vmcell::testing::IoRig;
///
/// let mut rig = IoRig::new();
/// let mut io = rig.turn();
/// assert!(!io.spent());
/// io.charge(vmcell::event::TURN_BYTES);
/// assert!(io.spent() && !rig.turn().spent());
///
/// let token = rig.turn().token();
/// let soon = Instant::now() + Duration::from_millis(5);
/// let events = rig.wait(Duration::from_secs(10), |wants| wants.deadline(token, soon))?;
/// assert_eq!(events[0].token, token);
/// # Ok::<(), vmcell::Error>(())
/// ```
pub struct IoRig {
    lender: Lender,
}

impl IoRig {
    /// Makes a rig without any token or waker.
    ///
    /// # Panics
    /// If the host gives no descriptor.
    pub fn new() -> Self {
        Self::with_pool(8 << 20)
    }

    /// Makes a rig whose buffers take at most `bytes` together. With zero, code under test gets [none](Io::bounce).
    ///
    /// # Panics
    /// If the host gives no descriptor.
    pub fn with_pool(bytes: usize) -> Self {
        Self { lender: Lender::new(bytes).expect("the host gives a descriptor") }
    }

    /// Begins a turn.
    pub fn turn(&mut self) -> Io<'_> {
        self.lender.lend()
    }

    /// Begins a turn that ends by its bytes alone, however long it takes, so that a test does the same each time.
    pub fn turn_without_clock(&mut self) -> Io<'_> {
        let mut io = self.lender.lend();
        io.ignore_clock();
        io
    }

    /// Returns the events of the wakers that were used since the last call.
    pub fn woken(&mut self) -> Vec<Event> {
        self.lender.woken()
    }

    /// Asks `wants` what the code waits for, and waits until it happens or a waker is used. Returns no event if `limit` passes
    /// first.
    ///
    /// # Errors
    /// If a descriptor is wanted that cannot be polled.
    pub fn wait(&mut self, limit: Duration, wants: impl FnOnce(&mut Wants)) -> crate::Result<Vec<Event>> {
        let mut wanted = Wants::default();
        wants(&mut wanted);
        self.lender.wait(limit, &wanted)
    }
}

impl Default for IoRig {
    fn default() -> Self {
        Self::new()
    }
}
