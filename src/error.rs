//! The one public error: what was refused, its value, what is allowed, and the cause behind it.
//!
//! Every room returns it. It is not an enum of every possible failure: callers match on [`ErrorKind`], people read the
//! message, and the cause is behind [`std::error::Error::source`].

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The result of every fallible call in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A refused request or a failed operation.
///
/// The message names what was refused, its value and what is allowed. It does not contain the cause; walk
/// [`source`](StdError::source) for that.
///
/// ```
/// use vmcell::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::InvalidConfig, "0 vCPUs were asked for, allowed are 1 to 64");
/// assert_eq!(error.kind(), ErrorKind::InvalidConfig);
/// assert_eq!(error.to_string(), "0 vCPUs were asked for, allowed are 1 to 64");
/// ```
///
/// A clone is another handle to the same error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of failure that a caller can tell apart without reading the message.
///
/// The numbers are shared with the C interface and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorKind {
    /// A value in the configuration is out of range, or two values contradict each other.
    InvalidConfig = 1,
    /// A kernel, an initrd or a command line was refused.
    BootImage = 2,
    /// A disk was refused, or its file could not be used.
    Disk = 3,
    /// A network interface was refused, or its TAP device could not be used.
    Network = 4,
    /// A console sink could not be used.
    Console = 5,
    /// `/dev/kvm` is missing, was refused, or lacks a capability.
    KvmUnavailable = 6,
    /// KVM refused an operation.
    Kvm = 7,
    /// The host could not provide the guest's memory.
    HostMemory = 8,
    /// An address or a range lies outside the guest's memory.
    GuestAddress = 9,
    /// The call is not legal in the present state.
    InvalidState = 10,
    /// Another request to the host's operating system failed.
    Host = 11,
    /// The guest did something that ends the VM: an exit that cannot be served.
    Guest = 12,
    /// A time limit passed.
    Timeout = 13,
    /// The guest broke the virtio specification in one of its queues.
    Virtqueue = 14,
    /// A vsock was refused, its Unix socket could not be used, or a connection to the guest was refused.
    Vsock = 15,
    /// A file of a snapshot was refused, or could not be used.
    Snapshot = 16,
    /// An encrypted volume was refused, or its file could not be used.
    Volume = 17,
    /// No key of a volume's is opened by what was given.
    VolumeKey = 18,
    /// A secret was refused, or could not be sealed, opened, kept or delivered.
    Secret = 19,
}

impl Error {
    /// Makes an error without a cause.
    ///
    /// The message is lower case where grammar allows it and has no final stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// Adds the cause, replacing an earlier one. If that is a limit of the process or the host, the message says which one.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        let mut message = self.0.message.clone();
        if let Some(limit) = source.downcast_ref().and_then(limit) {
            message.push_str("; ");
            message.push_str(limit);
        }
        Self(Arc::new(Inner { kind: self.0.kind, message, source: Some(Arc::from(source)) }))
    }

    /// Puts what the error is about in front of its message.
    #[must_use]
    pub(crate) fn about(&self, subject: &str) -> Self {
        let message = format!("{subject}: {}", self.0.message);
        Self(Arc::new(Inner { message, ..Inner::clone(&self.0) }))
    }

    /// What went wrong, for a program to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message and every cause behind it, joined by `: `, for a log line.
    ///
    /// ```
    /// use vmcell::{Error, ErrorKind};
    ///
    /// let cause = std::io::Error::from_raw_os_error(2);
    /// let error = Error::new(ErrorKind::Disk, "cannot open disk root.img").with_source(cause);
    /// assert!(error.chain().starts_with("cannot open disk root.img: No such file"));
    /// ```
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Which limit the operating system means, and where it is set: its own words do not say.
fn limit(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EMFILE => Some("the process has as many files open as it may (RLIMIT_NOFILE, ulimit -n)"),
        libc::ENFILE => Some("the host has as many files open as it may (fs.file-max)"),
        libc::ENOMEM => {
            Some("the host has no memory left for it, or the process as many mappings as it may (vm.max_map_count)")
        }
        _ => None,
    }
}

/// Two errors are equal if they are of the same kind and tell the same, causes included.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.chain() == other.chain()
    }
}

impl Eq for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.0.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_was_reached_is_named() {
        let error = |number| {
            Error::new(ErrorKind::Host, "cannot make an eventfd").with_source(io::Error::from_raw_os_error(number))
        };
        assert_eq!(
            error(libc::EMFILE).to_string(),
            "cannot make an eventfd; the process has as many files open as it may (RLIMIT_NOFILE, ulimit -n)"
        );
        assert!(error(libc::ENOMEM).to_string().contains("vm.max_map_count"));
        assert_eq!(error(libc::EIO).to_string(), "cannot make an eventfd");
    }
}
