//! What a driver knows of a disk, and relies on in a VM that goes on with another.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::virtio::DeviceState;

/// The version of the format in which it is saved. The first version had nothing.
const VERSION: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// In bytes.
    pub(super) capacity: u64,
    pub(super) block_size: u32,
    pub(super) read_only: bool,
}

impl Shape {
    pub(super) fn write(self) -> DeviceState {
        let mut bytes = self.capacity.to_le_bytes().to_vec();
        bytes.extend(self.block_size.to_le_bytes());
        bytes.push(self.read_only.into());
        DeviceState::new(VERSION, bytes)
    }

    /// That of the disk that was saved; `None` if it is not known.
    pub(super) fn read(state: &DeviceState) -> Result<Option<Self>> {
        match (state.version, state.bytes.as_slice()) {
            (1, []) => Ok(None),
            (VERSION, [a, b, c, d, e, f, g, h, i, j, k, l, read_only @ (0 | 1)]) => {
                let capacity = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                let block_size = u32::from_le_bytes([*i, *j, *k, *l]);
                Ok(Some(Self { capacity, block_size, read_only: *read_only == 1 }))
            }
            (version, bytes) => {
                let len = bytes.len();
                let message = format!(
                    "the saved state of a disk is of version {version} and {len} bytes, known are 1 with 0 and 2 with 13"
                );
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "read-only" } else { "writable" };
        write!(f, "{} bytes in blocks of {}, {access}", self.capacity, self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_read_as_it_was_written_and_what_is_none_is_refused() {
        for shape in [
            Shape { capacity: 1 << 40, block_size: 512, read_only: false },
            Shape { capacity: 4096, block_size: 4096, read_only: true },
        ] {
            assert_eq!(Shape::read(&shape.write()).unwrap(), Some(shape));
        }
        assert_eq!(Shape::read(&DeviceState::new(1, [])).unwrap(), None);
        for (version, len) in [(0, 0), (1, 1), (2, 12), (2, 14), (3, 13)] {
            let error = Shape::read(&DeviceState::new(version, vec![0; len])).unwrap_err();
            assert!(error.to_string().ends_with("known are 1 with 0 and 2 with 13"), "{error}");
        }
        assert!(Shape::read(&DeviceState::new(2, [2; 13])).is_err());
    }
}
