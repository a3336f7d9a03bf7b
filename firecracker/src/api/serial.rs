//! `/serial`: the serial port.

use serde::Deserialize;

use super::limiter::Bucket;

/// Where the guest's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// A file or a named pipe; standard output if there is none.
    pub serial_out_path: Option<String>,
    /// How many bytes are passed on.
    pub rate_limiter: Option<Bucket>,
}
