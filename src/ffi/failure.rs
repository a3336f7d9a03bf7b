//! A call's failure: its number for C, a message, and the causes behind it.

use std::error::Error as _;
use std::fmt;

use crate::error::{Error, ErrorKind};

/// The call succeeded.
pub const VMCELL_OK: i32 = 0;
/// A value in the configuration is out of range, or two values contradict each other.
pub const VMCELL_ERROR_INVALID_CONFIG: i32 = 1;
/// A kernel, an initrd or a command line was refused.
pub const VMCELL_ERROR_BOOT_IMAGE: i32 = 2;
/// A disk was refused, or its file could not be used.
pub const VMCELL_ERROR_DISK: i32 = 3;
/// A network interface was refused, or its TAP device could not be used.
pub const VMCELL_ERROR_NETWORK: i32 = 4;
/// A console could not be used.
pub const VMCELL_ERROR_CONSOLE: i32 = 5;
/// `/dev/kvm` is missing, was refused, or lacks a capability.
pub const VMCELL_ERROR_KVM_UNAVAILABLE: i32 = 6;
/// KVM refused an operation.
pub const VMCELL_ERROR_KVM: i32 = 7;
/// The host could not provide the guest's memory.
pub const VMCELL_ERROR_HOST_MEMORY: i32 = 8;
/// An address or a range lies outside the guest's memory.
pub const VMCELL_ERROR_GUEST_ADDRESS: i32 = 9;
/// The call is not legal in the VM's present state.
pub const VMCELL_ERROR_INVALID_STATE: i32 = 10;
/// Another request to the host's operating system failed.
pub const VMCELL_ERROR_HOST: i32 = 11;
/// The guest did something that ends the VM: an exit that cannot be served.
pub const VMCELL_ERROR_GUEST: i32 = 12;
/// A time limit passed.
pub const VMCELL_ERROR_TIMEOUT: i32 = 13;
/// The guest broke the virtio specification in one of its queues.
pub const VMCELL_ERROR_VIRTQUEUE: i32 = 14;
/// A vsock was refused, its Unix socket could not be used, or a connection to the guest was refused.
pub const VMCELL_ERROR_VSOCK: i32 = 15;
/// A file of a snapshot was refused, or could not be used.
pub const VMCELL_ERROR_SNAPSHOT: i32 = 16;
/// An encrypted volume was refused, or its file could not be used.
pub const VMCELL_ERROR_VOLUME: i32 = 17;
/// No key of a volume's is opened by what was given.
pub const VMCELL_ERROR_VOLUME_KEY: i32 = 18;
/// A secret was refused, or could not be sealed, opened, kept or delivered.
pub const VMCELL_ERROR_SECRET: i32 = 19;
/// An argument is NULL but must not be.
pub const VMCELL_ERROR_NULL_ARGUMENT: i32 = 100;
/// An object was freed or handed over before, has another type, or does not come from this library.
pub const VMCELL_ERROR_BAD_HANDLE: i32 = 101;
/// A text is not UTF-8.
pub const VMCELL_ERROR_NOT_UTF8: i32 = 102;
/// A number means nothing to this version of the library.
pub const VMCELL_ERROR_BAD_VALUE: i32 = 103;
/// A file descriptor is not open.
pub const VMCELL_ERROR_BAD_DESCRIPTOR: i32 = 104;
/// The library noticed a bug in itself: please report the message.
pub const VMCELL_ERROR_PANIC: i32 = 105;

pub(super) type FfiResult<T> = Result<T, Failure>;

/// A call's failure, before it becomes an object.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) number: i32,
    pub(super) message: String,
    pub(super) causes: Vec<String>,
}

impl Failure {
    pub(super) fn new(number: i32, message: impl Into<String>) -> Self {
        Self { number, message: message.into(), causes: Vec::new() }
    }

    pub(super) fn number(&self) -> i32 {
        self.number
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { number: number_of(error.kind()), message: error.to_string(), causes }
    }
}

/// A new kind gets its number for C here.
fn number_of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::InvalidConfig => VMCELL_ERROR_INVALID_CONFIG,
        ErrorKind::BootImage => VMCELL_ERROR_BOOT_IMAGE,
        ErrorKind::Disk => VMCELL_ERROR_DISK,
        ErrorKind::Network => VMCELL_ERROR_NETWORK,
        ErrorKind::Console => VMCELL_ERROR_CONSOLE,
        ErrorKind::KvmUnavailable => VMCELL_ERROR_KVM_UNAVAILABLE,
        ErrorKind::Kvm => VMCELL_ERROR_KVM,
        ErrorKind::HostMemory => VMCELL_ERROR_HOST_MEMORY,
        ErrorKind::GuestAddress => VMCELL_ERROR_GUEST_ADDRESS,
        ErrorKind::InvalidState => VMCELL_ERROR_INVALID_STATE,
        ErrorKind::Host => VMCELL_ERROR_HOST,
        ErrorKind::Guest => VMCELL_ERROR_GUEST,
        ErrorKind::Timeout => VMCELL_ERROR_TIMEOUT,
        ErrorKind::Virtqueue => VMCELL_ERROR_VIRTQUEUE,
        ErrorKind::Vsock => VMCELL_ERROR_VSOCK,
        ErrorKind::Snapshot => VMCELL_ERROR_SNAPSHOT,
        ErrorKind::Volume => VMCELL_ERROR_VOLUME,
        ErrorKind::VolumeKey => VMCELL_ERROR_VOLUME_KEY,
        ErrorKind::Secret => VMCELL_ERROR_SECRET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are never reused: a line here is added, never changed or removed.
    const NUMBERS: [(ErrorKind, i32, i32); 19] = [
        (ErrorKind::InvalidConfig, VMCELL_ERROR_INVALID_CONFIG, 1),
        (ErrorKind::BootImage, VMCELL_ERROR_BOOT_IMAGE, 2),
        (ErrorKind::Disk, VMCELL_ERROR_DISK, 3),
        (ErrorKind::Network, VMCELL_ERROR_NETWORK, 4),
        (ErrorKind::Console, VMCELL_ERROR_CONSOLE, 5),
        (ErrorKind::KvmUnavailable, VMCELL_ERROR_KVM_UNAVAILABLE, 6),
        (ErrorKind::Kvm, VMCELL_ERROR_KVM, 7),
        (ErrorKind::HostMemory, VMCELL_ERROR_HOST_MEMORY, 8),
        (ErrorKind::GuestAddress, VMCELL_ERROR_GUEST_ADDRESS, 9),
        (ErrorKind::InvalidState, VMCELL_ERROR_INVALID_STATE, 10),
        (ErrorKind::Host, VMCELL_ERROR_HOST, 11),
        (ErrorKind::Guest, VMCELL_ERROR_GUEST, 12),
        (ErrorKind::Timeout, VMCELL_ERROR_TIMEOUT, 13),
        (ErrorKind::Virtqueue, VMCELL_ERROR_VIRTQUEUE, 14),
        (ErrorKind::Vsock, VMCELL_ERROR_VSOCK, 15),
        (ErrorKind::Snapshot, VMCELL_ERROR_SNAPSHOT, 16),
        (ErrorKind::Volume, VMCELL_ERROR_VOLUME, 17),
        (ErrorKind::VolumeKey, VMCELL_ERROR_VOLUME_KEY, 18),
        (ErrorKind::Secret, VMCELL_ERROR_SECRET, 19),
    ];

    #[test]
    fn numbers_are_those_of_the_rust_kinds() {
        for (kind, number, pinned) in NUMBERS {
            assert_eq!((kind as i32, number, number_of(kind)), (pinned, pinned, pinned), "{kind:?}");
        }
    }

    #[test]
    fn numbers_of_the_c_interface_alone_begin_at_a_hundred() {
        let own = [
            VMCELL_ERROR_NULL_ARGUMENT,
            VMCELL_ERROR_BAD_HANDLE,
            VMCELL_ERROR_NOT_UTF8,
            VMCELL_ERROR_BAD_VALUE,
            VMCELL_ERROR_BAD_DESCRIPTOR,
            VMCELL_ERROR_PANIC,
        ];
        assert_eq!(own, [100, 101, 102, 103, 104, 105]);
    }
}
