//! The error for what KVM turns down.

use crate::error::{Error, ErrorKind};

/// The error for a request that KVM turned down.
pub(super) fn refused(what: &str, cause: kvm_ioctls::Error) -> Error {
    // The foreign error's own text; its type is not part of our interface.
    let cause = std::io::Error::from_raw_os_error(cause.errno());
    Error::new(ErrorKind::Kvm, format!("KVM refused to {what}")).with_source(cause)
}
