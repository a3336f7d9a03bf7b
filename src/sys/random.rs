//! Random bytes from the kernel.

use std::io;

/// Fills `bytes`. Waits only on a host that has just booted and has no entropy yet.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> io::Result<()> {
    fill(bytes, 0)
}

/// Fills `bytes` without waiting.
///
/// # Errors
/// `WouldBlock` on a host that has just booted and has no entropy yet.
pub(crate) fn random_bytes_now(bytes: &mut [u8]) -> io::Result<()> {
    fill(bytes, libc::GRND_NONBLOCK)
}

fn fill(bytes: &mut [u8], flags: libc::c_uint) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of a slice that we may write to.
        let done = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), flags) };
        match usize::try_from(done) {
            Ok(done) => rest = rest.get_mut(done..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
