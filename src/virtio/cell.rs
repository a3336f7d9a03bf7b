//! Who may call the device when: one at a time, nobody while it is paused, nobody ever again once it is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::device::{Activation, BackendEvent, BackendInterest, Progress, VirtioDevice};
use super::interrupt::MmioInterrupt;
use super::io_thread::Control;
use super::lock;
use super::queue::Queue;
use crate::error::Result;
use crate::sys::{EventFd, Interest, Readiness};

/// A device with all that its callers share.
///
/// The device is taken out for each call and put back after it. Who finds it gone waits, and is sent away when the cell
/// is closed: so nothing waits for a slow device longer than it wants to.
pub(super) struct DeviceCell {
    state: Mutex<State>,
    freed: Condvar,
    queues: Mutex<Vec<Option<Queue>>>,
    backends: OnceLock<Vec<Backend>>,
    pub(super) interrupt: Arc<MmioInterrupt>,
    pub(super) doorbells: Vec<Arc<EventFd>>,
}

struct State {
    device: Option<Box<dyn VirtioDevice>>,
    active: bool,
    paused: bool,
    closed: bool,
}

/// A source that the device wants to be called for.
pub(super) struct Backend {
    token: usize,
    control: Control,
    current: Mutex<Interest>,
    /// The other side is gone, and would be reported for ever.
    muted: AtomicBool,
}

impl Backend {
    pub(super) fn new(token: usize, control: Control) -> Self {
        Self { token, control, current: Mutex::new(Interest::Nothing), muted: AtomicBool::new(false) }
    }

    fn set(&self, interest: Interest) {
        let mut current = lock(&self.current);
        if *current != interest {
            *current = interest;
            self.control.set_interest(interest);
        }
    }
}

/// The device while somebody calls it.
struct Entered<'a> {
    cell: &'a DeviceCell,
    device: Option<Box<dyn VirtioDevice>>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.cell.state).device = self.device.take();
        self.cell.freed.notify_all();
    }
}

impl DeviceCell {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        interrupt: Arc<MmioInterrupt>,
        doorbells: Vec<Arc<EventFd>>,
    ) -> Self {
        Self {
            state: Mutex::new(State { device: Some(device), active: false, paused: false, closed: false }),
            freed: Condvar::new(),
            queues: Mutex::new(Vec::new()),
            backends: OnceLock::new(),
            interrupt,
            doorbells,
        }
    }

    pub(super) fn set_backends(&self, backends: Vec<Backend>) {
        let _ = self.backends.set(backends);
    }

    /// Waits until nobody calls the device; `None` once the cell is closed, or where `wanted` says no.
    fn enter(&self, wanted: impl Fn(&State) -> bool) -> Option<Entered<'_>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed || !wanted(&state) {
                return None;
            }
            if let Some(device) = state.device.take() {
                return Some(Entered { cell: self, device: Some(device) });
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Calls the device from a vCPU thread, in whatever state it is.
    pub(super) fn with<R>(&self, call: impl FnOnce(&mut dyn VirtioDevice) -> R) -> Option<R> {
        let mut entered = self.enter(|_| true)?;
        self.guarded(&mut entered, |device| Ok(call(device)))
    }

    /// Calls the device on the I/O thread, if it is active and not paused, and does what the call leaves to do.
    fn serve<R>(&self, call: impl FnOnce(&mut dyn VirtioDevice) -> Result<R>) -> Option<R> {
        let Some(mut entered) = self.enter(|state| state.active && !state.paused) else {
            self.still();
            return None;
        };
        let result = self.guarded(&mut entered, call);
        self.settle(&mut entered);
        result
    }

    /// The driver rang for a queue.
    pub(super) fn on_doorbell(&self, index: u16) {
        let Some(doorbell) = self.doorbells.get(usize::from(index)) else { return };
        doorbell.take();
        if self.serve(|device| device.process_queue(index)) == Some(Progress::More) {
            doorbell.signal();
        }
    }

    /// A source of the device became ready.
    pub(super) fn on_backend(&self, token: usize, ready: Readiness) {
        let event = BackendEvent { readable: ready.readable, writable: ready.writable, hang_up: ready.hang_up };
        if let Some(backend) = self.backend(token).filter(|_| ready.hang_up) {
            backend.muted.store(true, Ordering::Release);
        }
        self.serve(|device| device.process_backend(token, event));
    }

    /// The driver is ready.
    pub(super) fn activate(&self, activation: Activation) {
        let Some(mut entered) = self.enter(|_| true) else { return };
        lock(&self.queues).clone_from(&activation.queues);
        for backend in self.backends() {
            backend.muted.store(false, Ordering::Release);
        }
        let closed = {
            let mut state = lock(&self.state);
            state.active = true;
            state.closed
        };
        if closed {
            // Closed a moment ago, when these queues were not there to be closed.
            return self.each_queue(Queue::close);
        }
        self.guarded(&mut entered, |device| device.activate(activation));
        self.settle(&mut entered);
        drop(entered);
        self.ring_all();
    }

    /// Back to the state before activation. What is in flight is ended first; completions after this do nothing.
    pub(super) fn reset(&self) {
        // A batch that is under way ends at its next chain.
        self.each_queue(Queue::close);
        let Some(mut entered) = self.enter(|_| true) else { return };
        let whole = self.guarded(&mut entered, |device| {
            device.drain();
            device.reset();
            Ok(())
        });
        lock(&self.state).active = false;
        lock(&self.queues).clear();
        self.still();
        // Last, so that a failure of the device in its past life does not stand in the next.
        self.interrupt.reset();
        if whole.is_none() {
            self.interrupt.fail(false);
        }
    }

    pub(super) fn pause(&self) {
        lock(&self.state).paused = true;
        self.each_queue(|queue| queue.set_paused(true));
        if let Some(mut entered) = self.enter(|_| true) {
            self.guarded(&mut entered, |device| {
                device.drain();
                Ok(())
            });
            self.still();
        }
    }

    pub(super) fn resume(&self) {
        lock(&self.state).paused = false;
        self.each_queue(|queue| queue.set_paused(false));
        if let Some(mut entered) = self.enter(|state| state.active && !state.paused) {
            self.settle(&mut entered);
        }
        self.ring_all();
    }

    /// Never waits: the device gets no more chains, and nobody calls it again.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.freed.notify_all();
        self.each_queue(Queue::close);
    }

    pub(super) fn is_active(&self) -> bool {
        lock(&self.state).active
    }

    /// Runs one call; an error or a panic makes the device one that needs a reset.
    fn guarded<R>(
        &self,
        entered: &mut Entered<'_>,
        call: impl FnOnce(&mut dyn VirtioDevice) -> Result<R>,
    ) -> Option<R> {
        let device = entered.device.as_mut()?.as_mut();
        match catch_unwind(AssertUnwindSafe(|| call(device))) {
            Ok(Ok(result)) => Some(result),
            Ok(Err(_)) | Err(_) => {
                self.fail();
                None
            }
        }
    }

    fn fail(&self) {
        let was_active = std::mem::replace(&mut lock(&self.state).active, false);
        self.each_queue(Queue::close);
        self.still();
        self.interrupt.fail(was_active);
    }

    /// What every call leaves to do: tell the driver, come back for what was left, wait for what the device waits for.
    fn settle(&self, entered: &mut Entered<'_>) {
        for (queue, doorbell) in lock(&self.queues).iter().zip(&self.doorbells) {
            let Some(queue) = queue else { continue };
            queue.notify();
            if queue.take_more() {
                doorbell.signal();
            }
        }
        if self.backends().is_empty() || !self.is_active() {
            return;
        }
        self.guarded(entered, |device| {
            for backend in self.backends() {
                let muted = backend.muted.load(Ordering::Acquire);
                let wanted = if muted { BackendInterest::default() } else { device.backend_interest(backend.token) };
                backend.set(interest(wanted));
            }
            Ok(())
        });
    }

    /// Waits for no source any more.
    fn still(&self) {
        for backend in self.backends() {
            backend.set(Interest::Nothing);
        }
    }

    fn ring_all(&self) {
        if self.is_active() {
            self.doorbells.iter().for_each(|doorbell| doorbell.signal());
        }
    }

    fn each_queue(&self, call: impl Fn(&Queue)) {
        lock(&self.queues).iter().flatten().for_each(call);
    }

    fn backends(&self) -> &[Backend] {
        self.backends.get().map_or(&[], Vec::as_slice)
    }

    fn backend(&self, token: usize) -> Option<&Backend> {
        self.backends().iter().find(|backend| backend.token == token)
    }
}

fn interest(wanted: BackendInterest) -> Interest {
    match (wanted.readable, wanted.writable) {
        (true, true) => Interest::ReadableWritable,
        (true, false) => Interest::Readable,
        (false, true) => Interest::Writable,
        (false, false) => Interest::Nothing,
    }
}

#[cfg(test)]
#[path = "cell_test.rs"]
mod tests;
