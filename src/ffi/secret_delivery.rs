//! Secrets given to guests.

use std::time::Duration;

use super::config::{ConfigObject, set};
use super::convert::Out;
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::secret::SecretObject;
use super::vm::VmObject;
use crate::secret::Secret;

/// Gives the guest a secret, as a system credential of systemd and among the OEM strings of SMBIOS; docs/secrets.md says how it is read there. It is
/// copied, and may be freed or given to other VMs afterwards. vmcell_vm_new writes it to the guest's memory, zeroes the copy, and says what
/// cannot be given: SECRET for two of the same name, for more than 255, for more than there is room for, and for a fork, which
/// vmcell_vm_renew_secret gives one. Until vmcell_vm_scrub_secrets or the time limit, no snapshot is taken. Never blocks.
///
/// Errors: SECRET if the process may not lock so much memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_add_secret(
    config: *mut ConfigObject,
    secret: *const SecretObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let secret = objects::get(secret)?;
        let copy = Secret::new(secret.0.name(), secret.0.expose())?;
        set(config, |description| description.secrets.push(copy))
    })
}

/// Sets how many milliseconds after its start the VM writes over its secrets, unless vmcell_vm_scrub_secrets has done so before or the guest has ended;
/// UINT64_MAX is no limit. The default is 300,000. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_scrub_secrets_after(
    config: *mut ConfigObject,
    milliseconds: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    let limit = if milliseconds == u64::MAX { Duration::MAX } else { Duration::from_millis(milliseconds) };
    guard(report, || set(config, |description| description.scrub_secrets_after = Some(limit)))
}

/// Writes over the secrets in the tables of the guest. What it has read of them stays its own. Does nothing if that is done already. Never blocks
/// for long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_scrub_secrets(vm: *mut VmObject, error: *mut *mut ErrorObject) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.vm().scrub_secrets()?))
}

/// Sets `in_clear` to 1 if secrets lie in the tables of the guest, and to 0 otherwise. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_has_secrets_in_clear(
    vm: *mut VmObject,
    in_clear: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let out = unsafe { Out::new(in_clear, "in_clear") }?;
        out.write(i32::from(objects::get(vm)?.vm().has_secrets_in_clear()));
        Ok(())
    })
}

/// Puts a secret in the place of the one of that name with which the guest was booted, also in a fork, before its start or afterwards. Nothing tells the
/// guest. The time until it is written over begins anew. Blocks only while another thread pauses the VM or takes a snapshot.
///
/// Errors: SECRET if the guest was booted without a secret of that name, or with a shorter one; INVALID_STATE if the VM was suspended, and in a
/// callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_renew_secret(
    vm: *mut VmObject,
    secret: *const SecretObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(objects::get(vm)?.vm().renew_secret(&objects::get(secret)?.0)?))
}
