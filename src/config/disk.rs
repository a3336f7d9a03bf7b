//! A disk as the guest sees it.

use std::path::{Path, PathBuf};

use super::limits::Limits;
use super::text::refuse_nul;
use crate::error::{Error, ErrorKind, Result};

/// The longest serial number that the guest can be told, in bytes (5.2.6).
pub(crate) const MAX_SERIAL: usize = 20;

/// The most queues of a disk.
const MAX_QUEUES: u16 = 16;

/// How a disk's requests reach its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Engine {
    /// [`Uring`](Self::Uring) if the host has it, otherwise [`Sync`](Self::Sync).
    #[default]
    Auto,
    /// The io_uring of the disk's I/O thread (Linux 5.18 or later). Many requests wait for the storage at the same time. If the host
    /// forbids io_uring while the disk is in use, requests go on by system calls.
    Uring,
    /// Ordinary system calls. Requests that have to wait for the storage do so one after another, on a thread of the disk's.
    Sync,
}

/// A disk on a raw file or block device, as plain data. [`Disk`](crate::Disk) has open files and backends as well.
///
/// ```
/// use vmcell::{DiskConfig, Engine};
///
/// let disk = DiskConfig::new("root.img").read_only(true).serial("root").engine(Engine::Sync);
/// assert!(disk.read_only);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, expecting = "an object such as { \"path\": \"root.img\" }")
)]
#[non_exhaustive]
pub struct DiskConfig {
    /// The path of the file or block device, which is opened when the VM is built; see [`Disk::open`](crate::Disk::open).
    pub path: PathBuf,
    /// Whether the guest may only read. By default, it may write.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub read_only: bool,
    /// The serial number that the guest is told: at most 20 printable ASCII characters. It is empty by default.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub serial: String,
    /// How requests reach the file. The default is [`Engine::Auto`].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub engine: Engine,
    /// Whether the guest's data go past the host's page cache; see [`Disk::direct`](crate::Disk::direct). By default, they do not.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub direct: bool,
    /// How many queues the guest's driver may use, 1 to 16. By default there is one for each vCPU, but no more than four.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub queues: Option<u16>,
    /// What the guest may do with the disk; see [`Disk::limits`](crate::Disk::limits). The default is no limits.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "super::written::is_default"))]
    pub limits: Limits,
    /// The name of a group of the VM's [`limit_groups`](crate::VmConfig::limit_groups), whose limits the disk keeps to, too. The default
    /// is none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub limit_group: Option<String>,
}

impl DiskConfig {
    /// A disk on a file or block device, which the guest may write to.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            read_only: false,
            serial: String::new(),
            engine: Engine::default(),
            direct: false,
            queues: None,
            limits: Limits::default(),
            limit_group: None,
        }
    }

    /// Sets whether the guest may only read.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets the serial number that the guest is told.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = serial.into();
        self
    }

    /// Chooses how requests reach the file.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets whether the guest's data go past the host's page cache.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Sets how many queues the guest's driver may use.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = Some(queues);
        self
    }

    /// Sets what the guest may do with the disk.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Puts the disk into a group of the VM's [`limit_groups`](crate::VmConfig::limit_groups).
    #[must_use]
    pub fn limit_group(mut self, name: impl Into<String>) -> Self {
        self.limit_group = Some(name.into());
        self
    }

    /// What messages call the disk of this number: `1 (data.img)`.
    pub(crate) fn name_as(&self, index: usize) -> String {
        format!("{index} ({})", self.path.display())
    }

    /// Refuses what no disk can be that is described as data, which needs a path.
    pub(crate) fn validate_described(&self, index: usize) -> Result<()> {
        refuse_nul("its path", self.path.as_os_str()).map_err(|error| error.about(&format!("disk {index}")))?;
        let name = self.name_as(index);
        if self.path.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("disk {name} has an empty path")));
        }
        self.validate(&name)
    }

    /// Refuses what no disk can be; `name` is what the message calls it.
    pub(crate) fn validate(&self, name: &str) -> Result<()> {
        let refused = |why: String| Err(Error::new(ErrorKind::InvalidConfig, format!("disk {name} {why}")));
        if let Some(queues) = self.queues.filter(|queues| !(1..=MAX_QUEUES).contains(queues)) {
            return refused(format!("has {queues} queues, allowed are 1 to {MAX_QUEUES}"));
        }
        self.limits.validate().map_err(|error| error.about(&format!("disk {name}")))?;
        let serial = &self.serial;
        if serial.len() <= MAX_SERIAL && serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Ok(());
        }
        let len = serial.len();
        refused(format!(
            "has the serial number {serial:?} of {len} bytes, allowed are 0 to {MAX_SERIAL} printable ASCII ones"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_serial(serial: &str) -> DiskConfig {
        DiskConfig::new("data.img").serial(serial)
    }

    #[test]
    fn a_disk_has_1_to_16_queues() {
        let with = |queues| DiskConfig { queues, ..DiskConfig::new("data.img") }.validate("1 (data.img)");
        [None, Some(1), Some(16)].into_iter().for_each(|queues| with(queues).unwrap());
        for queues in [0, 17] {
            let error = with(Some(queues)).unwrap_err().to_string();
            assert_eq!(error, format!("disk 1 (data.img) has {queues} queues, allowed are 1 to 16"));
        }
    }

    #[test]
    fn serials_are_at_most_twenty_printable_bytes() {
        assert!(with_serial("").validate("0").is_ok());
        assert!(with_serial("abcdefghij 123456789").validate("0").is_ok());
        for serial in ["abcdefghij 1234567890", "tab\t", "nul\0", "süß"] {
            let error = with_serial(serial).validate("0").unwrap_err();
            assert!(error.to_string().contains("allowed are 0 to 20 printable ASCII"), "{error}");
        }
    }
}
