//! A vsock as the guest sees it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::MAX_SOCKET_PATH;

/// 0 to 2 are those of the hypervisor, of the guest itself, and of the host; the last of 32 bits stands for any.
const CIDS: std::ops::RangeInclusive<u64> = 3..=0xffff_fffe;
/// Each one takes a descriptor of the process.
const MOST_CONNECTIONS: u32 = 4096;
const CONNECTIONS: u32 = 1024;

/// A vsock, as plain data (virtio 1.2, section 5.10): stream sockets between host and guest, without a network. In Linux, programs use it
/// by `AF_VSOCK`. The host's end of each connection is a Unix socket, so the host needs no module.
///
/// [`Vm::vsock`](crate::Vm::vsock) connects and listens. With a [path](Self::unix_path), other programs of the host can do so, too:
/// - a program that connects to the Unix socket at that path and writes `CONNECT 52` and a line feed is connected to port 52 of the guest. The first
///   line that comes back is `OK` and the port of the host's end; if the guest refuses, the stream is closed.
/// - if a program in the guest connects to port 52 of the host (CID 2), it is connected to the Unix socket at the path with `_52` behind it,
///   if somebody listens there. The folder may have a longer path than Linux takes for a socket, as long as the process has `/proc`.
///
/// ```
/// use vmcell::VsockConfig;
///
/// let vsock = VsockConfig::new(3).unix_path("/run/web-1.vsock");
/// assert_eq!((vsock.cid, vsock.max_connections), (3, 1024));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"cid\": 3, \"path\": \"guest.vsock\" }")
)]
#[non_exhaustive]
pub struct VsockConfig {
    /// The guest's context ID, by which it knows itself, 3 to 4294967294. As no connection leads from guest to guest, those of several
    /// VMs may be the same.
    pub cid: u64,
    /// Where the Unix socket is made for other programs of the host, in up to 107 bytes. The default is nowhere. If the path has more than
    /// 96 bytes from the root, the process has to have `/proc` to connect to programs that serve ports, and a name of about 80 bytes is
    /// refused when the VM is built.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub path: Option<PathBuf>,
    /// How many connections there may be at once, 1 to 4096. Others are refused. The default is 1024. Each one takes a descriptor of the
    /// process, and up to 64 KiB while the host's end does not read.
    #[cfg_attr(
        feature = "serde",
        serde(default = "default_connections", skip_serializing_if = "is_default_connections")
    )]
    pub max_connections: u32,
}

impl VsockConfig {
    /// One that has this context ID.
    pub fn new(cid: u64) -> Self {
        Self { cid, path: None, max_connections: CONNECTIONS }
    }

    /// Sets where the Unix socket is made for other programs of the host. It is made when the VM is built, with access for this user alone,
    /// and removed when the VM has ended. There must be nothing at that path before. While the guest runs, it has sockets connected whose
    /// paths begin with this one: a process that gives up its paths keeps the folder.
    #[must_use]
    pub fn unix_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path = Some(path.as_ref().to_owned());
        self
    }

    /// Sets how many connections there may be at once.
    #[must_use]
    pub fn max_connections(mut self, most: u32) -> Self {
        self.max_connections = most;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let (cid, most) = (self.cid, self.max_connections);
        if !CIDS.contains(&cid) {
            let (first, last) = CIDS.into_inner();
            return Err(invalid(format!("the context ID {cid} was asked for, allowed are {first} to {last}")));
        }
        if !(1..=MOST_CONNECTIONS).contains(&most) {
            return Err(invalid(format!("{most} connections were asked for, allowed are 1 to {MOST_CONNECTIONS}")));
        }
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.contains(&0) || path.file_name().is_none() {
            return Err(invalid(format!("the path {path:?} of its Unix socket names no file")));
        }
        if bytes.len() > MAX_SOCKET_PATH {
            let (path, len) = (path.display(), bytes.len());
            return Err(invalid(format!(
                "the path {path} of its Unix socket has {len} bytes, allowed are {MAX_SOCKET_PATH}"
            )));
        }
        Ok(())
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(feature = "serde")]
fn default_connections() -> u32 {
    CONNECTIONS
}

#[cfg(feature = "serde")]
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_default_connections(most: &u32) -> bool {
    *most == CONNECTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_ids_numbers_and_paths_that_cannot_be_are_refused_with_what_can() {
        let refusal = |config: VsockConfig| config.validate().unwrap_err().to_string();
        for cid in [0, 2, 0xffff_ffff, u64::MAX] {
            let wanted = format!("the context ID {cid} was asked for, allowed are 3 to 4294967294");
            assert_eq!(refusal(VsockConfig::new(cid)), wanted);
        }
        for most in [0, 4097] {
            let wanted = format!("{most} connections were asked for, allowed are 1 to 4096");
            assert_eq!(refusal(VsockConfig::new(3).max_connections(most)), wanted);
        }
        for path in ["", "/", "a\0b", ".."] {
            assert!(refusal(VsockConfig::new(3).unix_path(path)).contains("names no file"), "{path:?}");
        }
        let long = format!("/tmp/{}", "x".repeat(103));
        assert!(refusal(VsockConfig::new(3).unix_path(&long)).ends_with("has 108 bytes, allowed are 107"));
        VsockConfig::new(0xffff_fffe).unix_path(&long[..107]).max_connections(4096).validate().unwrap();
    }
}
