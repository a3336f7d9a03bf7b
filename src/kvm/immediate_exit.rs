//! The byte by which one thread makes another one's `KVM_RUN` return before it runs an instruction of the guest.

#[cfg(not(shuttle))]
use std::os::fd::AsRawFd;
#[cfg(not(shuttle))]
use std::ptr::{self, NonNull};

#[cfg(not(shuttle))]
use kvm_bindings::kvm_run;

use super::fd::VcpuFd;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::atomic::{AtomicU8, Ordering};

/// A kick has come that [`Vcpu::run`](super::Vcpu::run) has not reported yet.
pub(super) const KICKED: u8 = 1;
/// The vCPU is to finish an access, and to run nothing.
pub(super) const FINISHING: u8 = 2;

/// `immediate_exit` of the structure that KVM shares with us for a vCPU. KVM looks at it each time `KVM_RUN` is about to
/// enter the guest, and does not while it is not zero; what the single bits mean is ours.
///
/// It is a mapping of its own. The one in `VcpuFd` is reached through `&mut kvm_run`, which must stay the only way to its
/// bytes, and kickers write here at any time.
pub(super) struct ImmediateExit {
    #[cfg(not(shuttle))]
    shared: NonNull<kvm_run>,
    #[cfg(shuttle)]
    byte: std::sync::Arc<AtomicU8>,
}

#[cfg(not(shuttle))]
// SAFETY: the mapping belongs to no thread, and is only reached through an atomic.
unsafe impl Send for ImmediateExit {}
#[cfg(not(shuttle))]
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    #[cfg(shuttle)]
    pub(super) fn map(fd: &VcpuFd) -> Result<Self> {
        match fd {
            VcpuFd::Model { immediate_exit, .. } => Ok(Self { byte: immediate_exit.clone() }),
            VcpuFd::Kvm(_) => Err(Error::new(ErrorKind::Kvm, "a model has no vCPU of KVM's")),
        }
    }

    #[cfg(not(shuttle))]
    pub(super) fn map(fd: &VcpuFd) -> Result<Self> {
        let (len, protection) = (size_of::<kvm_run>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there already. The result is
        // checked. The kernel keeps the pages behind it until `drop` unmaps them, even if the descriptor is closed first.
        let address = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        match NonNull::new(address).filter(|address| address.as_ptr() != libc::MAP_FAILED) {
            Some(address) => Ok(Self { shared: address.cast() }),
            None => {
                let cause = std::io::Error::last_os_error();
                Err(Error::new(ErrorKind::Host, "cannot map what KVM shares with a vCPU").with_source(cause))
            }
        }
    }

    pub(super) fn set(&self, bit: u8) {
        self.byte().fetch_or(bit, Ordering::SeqCst);
    }

    pub(super) fn clear(&self, bit: u8) {
        self.byte().fetch_and(!bit, Ordering::SeqCst);
    }

    #[cfg(shuttle)]
    fn byte(&self) -> &AtomicU8 {
        &self.byte
    }

    #[cfg(not(shuttle))]
    fn byte(&self) -> &AtomicU8 {
        // SAFETY: `shared` leads to a mapping as long as the structure, which `self` keeps until it is dropped, and any
        // byte is a valid `AtomicU8`. All access of ours through this mapping is atomic. KVM only reads the byte.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.shared.as_ptr()).immediate_exit) }
    }
}

#[cfg(not(shuttle))]
impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, with this length, and nobody borrows from `self` any more.
        unsafe { libc::munmap(self.shared.as_ptr().cast(), size_of::<kvm_run>()) };
    }
}
