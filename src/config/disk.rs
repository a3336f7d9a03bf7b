//! A disk as the guest sees it.

use crate::error::{Error, ErrorKind, Result};

/// The longest serial number that the guest can be told, in bytes (5.2.6).
pub(crate) const MAX_SERIAL: usize = 20;

/// The most queues of a disk.
const MAX_QUEUES: u16 = 16;

/// How a disk's requests reach its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// [`Uring`](Self::Uring) if the host has it, otherwise [`Sync`](Self::Sync).
    #[default]
    Auto,
    /// The io_uring of the disk's I/O thread (Linux 5.18 or later). Many requests wait for the storage at the same time.
    Uring,
    /// Ordinary system calls. Requests that have to wait for the storage do so one after another, on a thread of the disk's.
    Sync,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskConfig {
    pub(crate) read_only: bool,
    pub(crate) serial: String,
    pub(crate) engine: Engine,
    pub(crate) direct: bool,
    pub(crate) queues: Option<u16>,
}

impl DiskConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(queues) = self.queues.filter(|queues| !(1..=MAX_QUEUES).contains(queues)) {
            let message = format!("a disk with {queues} queues was asked for, allowed are 1 to {MAX_QUEUES}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let serial = &self.serial;
        if serial.len() <= MAX_SERIAL && serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Ok(());
        }
        let len = serial.len();
        let message =
            format!("disk serial {serial:?} has {len} bytes, allowed are 0 to {MAX_SERIAL} printable ASCII ones");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_serial(serial: &str) -> DiskConfig {
        DiskConfig { serial: serial.to_owned(), ..DiskConfig::default() }
    }

    #[test]
    fn a_disk_has_1_to_16_queues() {
        let with = |queues| DiskConfig { queues, ..DiskConfig::default() };
        [None, Some(1), Some(16)].into_iter().for_each(|queues| with(queues).validate().unwrap());
        for queues in [0, 17] {
            let error = with(Some(queues)).validate().unwrap_err();
            assert!(
                error.to_string().contains(&format!("{queues} queues was asked for, allowed are 1 to 16")),
                "{error}"
            );
        }
    }

    #[test]
    fn serials_are_at_most_twenty_printable_bytes() {
        assert!(with_serial("").validate().is_ok());
        assert!(with_serial("abcdefghij 123456789").validate().is_ok());
        for serial in ["abcdefghij 1234567890", "tab\t", "nul\0", "süß"] {
            let error = with_serial(serial).validate().unwrap_err();
            assert!(error.to_string().contains("allowed are 0 to 20 printable ASCII"), "{error}");
        }
    }
}
