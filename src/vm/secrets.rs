//! What a host program says of a VM's secrets.

use std::time::Duration;

use super::builder::VmBuilder;
use super::vm::Vm;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::sys::{check_may_wait, lock};

impl VmBuilder {
    /// Gives the guest a secret as a system credential of systemd, which needs no agent: a unit reads it with
    /// `LoadCredential=NAME` (systemd.system-credentials(7), systemd 252 or newer). Others find it as
    /// `io.systemd.credential.binary:NAME=BASE64` among the OEM strings of SMBIOS, in Linux by `/sys/firmware/dmi/entries/11-0/raw`.
    ///
    /// The secret is written to the guest's memory when the VM is built, and ours is zeroed. It stays there until [`Vm::scrub_secrets`] or
    /// [the time limit](Self::scrub_secrets_after): until then no snapshot can be taken. All secrets of a VM take 49,108 bytes of its tables, of which
    /// each takes 31, its name, and 4 for 3 of its value. They are 255 at most, each with another name. Needs the feature `secret`.
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

    /// How long after its start the VM scrubs its secrets, unless that is [done](Vm::scrub_secrets) before, or the guest ends. The default is five minutes;
    /// with [`Duration::MAX`], there is no limit. The VM's I/O thread does it. Time that the VM is paused counts as well.
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
