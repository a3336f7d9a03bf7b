//! Secrets in the memory of their guest: from when the VM is built until they are scrubbed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::devices::Devices;
use super::snapshot::SnapshotParts;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Participant, Token, Waker, Wants};
use crate::logging::{LogLevel, Logger};
use crate::memory::GuestMemory;
use crate::secret::{Place, Secret, check};
use crate::sys::lock;

/// Until when a guest has read its secrets, if nothing is said about it.
const SCRUB_AFTER: Duration = Duration::from_secs(300);

/// What a builder was told.
pub(super) struct Wanted {
    pub(super) given: Vec<Secret>,
    pub(super) scrub_after: Duration,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { given: Vec::new(), scrub_after: SCRUB_AFTER }
    }
}

impl Wanted {
    /// Refuses secrets that the VM cannot be given.
    pub(super) fn check(&self, is_fork: bool) -> Result<()> {
        if is_fork && let Some(secret) = self.given.first() {
            let name = secret.name();
            let message =
                format!("secret {name} was given to a fork, which has booted already; Vm::renew_secret gives it one");
            return Err(Error::new(ErrorKind::Secret, message));
        }
        check(&self.given)
    }

    /// Writes them to the guest's memory, and zeroes ours. Those of a fork have the places of its source's, and are not there yet.
    pub(super) fn deliver(
        self,
        memory: &GuestMemory,
        source: Option<&SnapshotParts>,
        devices: &Devices,
        logger: Logger,
    ) -> Result<Arc<Secrets>> {
        let places = match source {
            Some(source) => source.secrets.clone(),
            None if self.given.is_empty() => Vec::new(),
            None => Place::for_all(memory, &self.given)?,
        };
        #[cfg(feature = "save")]
        Place::check_all(&places, memory)?;
        let state = State { in_clear: !self.given.is_empty(), ..State::default() };
        let has_places = !places.is_empty();
        let (memory, scrub_after, state) = (memory.clone(), self.scrub_after, Mutex::new(state));
        let secrets = Arc::new(Secrets { memory, places, scrub_after, logger, state });
        if has_places {
            devices.add(Box::new(Scrubber { secrets: Arc::clone(&secrets), token: None, until: None }))?;
        }
        Ok(secrets)
    }
}

/// The secrets of a VM.
pub(super) struct Secrets {
    memory: GuestMemory,
    places: Vec<Place>,
    scrub_after: Duration,
    logger: Logger,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_clear: bool,
    has_started: bool,
    scrub_at: Option<Instant>,
    waker: Option<Waker>,
}

impl Secrets {
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn is_in_clear(&self) -> bool {
        lock(&self.state).in_clear
    }

    pub(super) fn begin(&self) {
        let mut state = lock(&self.state);
        state.has_started = true;
        self.set_timer(&mut state);
    }

    pub(super) fn scrub(&self) -> Result<()> {
        self.scrub_held(&mut lock(&self.state))
    }

    /// Nobody reads them any more. The guest's memory is there until the VM is dropped, and so are they otherwise.
    pub(super) fn guest_has_ended(&self) {
        if let Err(error) = self.scrub() {
            self.logger.say(LogLevel::Error, "secrets", || error.chain());
        }
    }

    fn scrub_held(&self, state: &mut State) -> Result<()> {
        if state.in_clear {
            self.places.iter().try_for_each(|place| place.scrub(&self.memory))?;
            state.in_clear = false;
            state.scrub_at = None;
        }
        Ok(())
    }

    pub(super) fn renew(&self, secret: &Secret) -> Result<()> {
        let mut state = lock(&self.state);
        let name = secret.name();
        let Some(place) = self.places.iter().find(|place| place.name == name) else {
            let names: Vec<_> = self.places.iter().map(|place| place.name.as_str()).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("the guest was booted without a secret {name}; it has a place for: {known}");
            return Err(Error::new(ErrorKind::Secret, message));
        };
        place.check_room(secret)?;
        // Before the first byte is there.
        state.in_clear = true;
        self.set_timer(&mut state);
        place.fill(&self.memory, secret)
    }

    fn set_timer(&self, state: &mut State) {
        if state.in_clear && state.has_started {
            state.scrub_at = Instant::now().checked_add(self.scrub_after);
            state.waker.iter().for_each(Waker::wake);
        }
    }

    /// Scrubs them if it is time, and says when it will be.
    fn look(&self) -> Option<Instant> {
        let mut state = lock(&self.state);
        let at = state.scrub_at?;
        if at > Instant::now() {
            return Some(at);
        }
        // Under the same lock: what is renewed behind this has a time of its own.
        let scrubbed = self.scrub_held(&mut state);
        drop(state);
        match scrubbed {
            Ok(()) => self.logger.say(LogLevel::Info, "secrets", || "are scrubbed, since their time is up".into()),
            Err(error) => self.logger.say(LogLevel::Error, "secrets", || error.chain()),
        }
        None
    }
}

/// Scrubs the secrets of a VM when it is time, on its I/O thread.
struct Scrubber {
    secrets: Arc<Secrets>,
    token: Option<Token>,
    until: Option<Instant>,
}

impl Participant for Scrubber {
    fn attach(&mut self, io: &mut Io) -> Result<()> {
        let token = io.token();
        self.token = Some(token);
        lock(&self.secrets.state).waker = Some(io.waker(token));
        Ok(())
    }

    fn turn(&mut self, _io: &mut Io, _events: &[Event]) {
        self.until = self.secrets.look();
    }

    fn wants(&self, wants: &mut Wants) {
        if let (Some(token), Some(until)) = (self.token, self.until) {
            wants.deadline(token, until);
        }
    }
}

#[cfg(test)]
#[path = "delivery_test.rs"]
mod tests;
