//! What becomes of a device whose call fails, and who is told.

use super::super::device::VirtioDevice;
use super::super::queue::Queues;
use super::{Life, Owner};
use crate::error::{Error, Result};
use crate::event::Io;
use crate::logging::LogLevel;

impl Owner {
    /// Makes one call; an error or a panic makes the device one that needs a reset.
    pub(super) fn call(
        &mut self,
        io: &mut Io,
        call: impl FnOnce(&mut dyn VirtioDevice, &mut Io, &mut Queues) -> Result<()>,
    ) {
        let queues = &mut self.queues;
        let result = self.device.call(io, |device, io| call(device, io, queues));
        if let Err(error) | Ok(Err(error)) = result {
            self.fail(io, &error);
        }
    }

    /// Sets DEVICE_NEEDS_RESET, and says so to a driver that is there to hear it (2.1.2). The rings are not touched again. The
    /// device lets go of its chains: a pause must not wait for a driver that never resets it.
    pub(super) fn fail(&mut self, io: &mut Io, why: &Error) {
        self.note(why);
        let (was_active, had_failed) = (self.life == Life::Active, self.has_failed());
        self.count_chains();
        self.queues = Queues::default();
        self.let_go(io);
        self.life = match had_failed {
            _ if self.device.is_condemned() => Life::Dead,
            true => Life::Broken,
            false => Life::Failed,
        };
        self.gate.set_needs_reset(true);
        if was_active {
            self.interrupt.signal_config();
        }
    }

    /// Tells the host program.
    pub(super) fn note(&mut self, why: &Error) {
        let (cause, message) = self.gate.failures.note(why);
        if cause.is_final() {
            if self.losses.count(1).is_some() {
                self.voice.say(LogLevel::Error, || format!("failed for good: {message}"));
            }
        } else if let Some((_, total)) = self.failures.count(1) {
            let message = || format!("failed ({total} so far), and needs a reset by its driver: {message}");
            self.voice.say(LogLevel::Error, message);
        }
    }

    /// Has the device drop its chains and cancel what is in flight. One that is never called again has been dropped, or soon is,
    /// and its chains with it.
    pub(super) fn let_go(&mut self, io: &mut Io) {
        if !self.device.is_condemned()
            && let Err(error) = self.device.call(io, |device, io| device.reset(io))
        {
            self.note(&error);
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.life, Life::Failed | Life::Broken | Life::Dead)
    }

    /// Whether the device is told what happens.
    pub(super) fn hears(&self) -> bool {
        !matches!(self.life, Life::Broken | Life::Dead)
    }
}
