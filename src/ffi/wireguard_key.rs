//! Keys of WireGuard tunnels.

use std::ffi::c_char;

use zeroize::Zeroizing;

use super::convert::{OutText, read_text};
use super::failure::FfiResult;
use super::guard::guard;
use super::report::{ErrorObject, Report};
use crate::network::wireguard::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};

/// The room for a key of WireGuard's as text, in bytes: 44 characters of base64, and a NUL.
pub const VMCELL_WIREGUARD_KEY_BYTES: usize = 45;
const _: () = assert!(VMCELL_WIREGUARD_KEY_BYTES == KEY_LEN.div_ceil(3) * 4 + 1);

/// Writes a new private key, with a NUL behind it, into `buffer` of `capacity` bytes (VMCELL_WIREGUARD_KEY_BYTES), if it fits; `length` is set to what it
/// needs without the NUL, 44. The text is the caller's to protect and to erase. Waits only on a host that has just booted and has no entropy yet.
///
/// Errors: HOST if the kernel gives no random bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_wireguard_private_key(
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        out.write(&Zeroizing::new(PrivateKey::generate()?.reveal()));
        Ok(())
    })
}

/// As vmcell_wireguard_private_key, for a preshared key: a secret that two peers share beside their key pairs, so that what is recorded today stays
/// secret from a quantum computer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_wireguard_preshared_key(
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        out.write(&Zeroizing::new(PresharedKey::generate()?.reveal()));
        Ok(())
    })
}

/// Writes the public key that belongs to a private one, as vmcell_wireguard_private_key writes that. Never blocks.
///
/// Errors: NETWORK for what is no key; the message does not contain it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_wireguard_public_key(
    private_key: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let text = Zeroizing::new(unsafe { read_text(private_key, "private_key") }?);
        let key: PrivateKey = text.parse().map_err(|e: crate::error::Error| e.about("private_key"))?;
        out.write(&key.public_key().to_string());
        Ok(())
    })
}

/// # Safety
/// `text` is NULL, which is refused, or points to bytes that end with a NUL and stay as they are until the call returns.
pub(super) unsafe fn read_public_key(text: *const c_char) -> FfiResult<PublicKey> {
    // SAFETY: the caller promises the same.
    let text = unsafe { read_text(text, "public_key") }?;
    Ok(text.parse().map_err(|e: crate::error::Error| e.about("public_key"))?)
}
