//! Secrets in the memory of their guest: from when the VM is built until they are scrubbed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::builder::VmBuilder;
use super::devices::Devices;
use super::snapshot::SnapshotParts;
use super::vm::Vm;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Io, Participant, Token, Waker, Wants};
use crate::logging::{LogLevel, Logger};
use crate::memory::GuestMemory;
use crate::secret::{Place, Secret, check};
use crate::sys::{check_may_wait, lock};

/// Until when a guest has read its secrets, if nothing is said about it.
const SCRUB_AFTER: Duration = Duration::from_secs(300);

impl VmBuilder {
    /// Gives the guest a secret as a system credential of systemd, which needs no agent: a unit reads it with
    /// `LoadCredential=NAME` (systemd.system-credentials(7), systemd 252 or newer). Others find it as
    /// `io.systemd.credential.binary:NAME=BASE64` among the OEM strings of SMBIOS, in Linux by `/sys/firmware/dmi/entries/11-0/raw`.
    ///
    /// The secret is written to the guest's memory when the VM is built, and ours is zeroed. It stays there until [`Vm::scrub_secrets`] or
    /// [the time limit](Self::scrub_secrets_after): until then no snapshot can be taken. All secrets of a VM take 49,108 bytes of its tables, of which
    /// each takes 30, its name, and 4 for 3 of its value. They are 255 at most, each with another name. Needs the feature `secret`.
    ///
    /// A fork has no secrets of its own: see [`Vm::renew_secret`]. `docs/secrets.md` says who can read what, and when.
    ///
    /// ```no_run
    /// use vmcell::{Boot, Vm, secret::Secret};
    ///
    /// let boot = Boot::linux("vmlinuz").initrd("initrd.img");
    /// let vm = Vm::builder().boot(boot).secret(Secret::file("tls.key", "tls.key")?).build()?;
    /// vm.start()?;
    /// // Once the guest says that it is up:
    /// vm.scrub_secrets()?;
    /// # Ok::<(), vmcell::Error>(())
    /// ```
    #[must_use]
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.given.push(secret);
        self
    }

    /// How long after its start the VM scrubs its secrets, unless that is [done](Vm::scrub_secrets) before. The default is five minutes;
    /// with [`Duration::MAX`], only the caller does it. The VM's I/O thread does it. Time that the VM is paused counts as well.
    #[must_use]
    pub fn scrub_secrets_after(mut self, limit: Duration) -> Self {
        self.secrets.scrub_after = limit;
        self
    }
}

impl Vm {
    /// Writes over the secrets in the tables of the guest. What the guest has read of them is the guest's, and stays. Does nothing if that is
    /// done already. Never blocks for long.
    ///
    /// # Errors
    /// [`ErrorKind::GuestAddress`] if the guest's memory is gone, which it is not while the VM lives.
    pub fn scrub_secrets(&self) -> Result<()> {
        self.saves.secrets.scrub()
    }

    /// Whether secrets lie in the tables of the guest, where they wait to be read. Never blocks.
    pub fn has_secrets_in_clear(&self) -> bool {
        self.saves.secrets.is_in_clear()
    }

    /// Puts another value in the place of a secret that the guest was booted with, also in a [fork](VmBuilder::fork_of), whose places are those of
    /// its source. The time until it is [scrubbed](Self::scrub_secrets) begins anew, and with the start if that is still to come.
    ///
    /// Nothing tells the guest. systemd has read its credentials at boot and does not do so again; a guest that is told, over a vsock
    /// for instance, reads the file anew that [`VmBuilder::secret`] names.
    ///
    /// # Errors
    /// [`ErrorKind::Secret`] if the guest was booted without a secret of that name, or with a shorter one: to give it this one takes a VM that is
    /// built anew. [`ErrorKind::InvalidState`] if the VM was suspended, and in a [callback](crate::event#what-a-callback-may-do).
    pub fn renew_secret(&self, secret: &Secret) -> Result<()> {
        check_may_wait("give a secret to a VM")?;
        // No snapshot may begin meanwhile.
        let _one_at_a_time = lock(&self.transition);
        #[cfg(feature = "save")]
        self.check_has_ram("give a secret to")?;
        self.saves.secrets.renew(secret)
    }
}

impl Vm {
    /// Refuses to copy a guest's memory while secrets wait in it.
    pub(super) fn check_holds_no_secrets(&self, call: &str) -> Result<()> {
        if !self.has_secrets_in_clear() {
            return Ok(());
        }
        let message = format!("cannot {call} {} while its secrets are in clear; scrub them first", self.the_vm());
        Err(Error::new(ErrorKind::InvalidState, message))
    }
}

/// What a builder was told.
pub(super) struct Wanted {
    given: Vec<Secret>,
    scrub_after: Duration,
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
        places.iter().try_for_each(|place| place.check(memory))?;
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
        let mut state = lock(&self.state);
        if state.in_clear {
            self.places.iter().try_for_each(|place| place.scrub(&self.memory))?;
            state.in_clear = false;
            state.scrub_at = None;
        }
        Ok(())
    }

    fn renew(&self, secret: &Secret) -> Result<()> {
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
        let at = lock(&self.state).scrub_at?;
        if at > Instant::now() {
            return Some(at);
        }
        match self.scrub() {
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
