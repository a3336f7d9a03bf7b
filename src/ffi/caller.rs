//! What functions of the caller's have in common: the caller's own pointer, which comes back with each call, and a number
//! that they return.

use std::ffi::c_void;

/// What `submit` of a disk's backend and `send` of a network interface's return to say that there is no room now. It is far
/// from -1, so that a function that just fails does not say it.
pub const VMCELL_FULL: i32 = -4096;

/// Receives `user` when the library no longer needs it: once, after the last call with it, on any thread, often the one
/// that frees the VM.
pub type ReleaseUser = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A caller's pointer, passed back with each call until it is released.
pub(super) struct User {
    pub(super) user: *mut c_void,
    pub(super) release: ReleaseUser,
}

// SAFETY: the header says which threads use it, and no two threads use it at once.
unsafe impl Send for User {}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the header demands a function that takes it, and this is the one time that it is called.
            unsafe { release(self.user) };
        }
    }
}
