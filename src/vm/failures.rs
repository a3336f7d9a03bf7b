//! Which devices of a VM have failed, and why.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::json::Json;
use crate::virtio::Failure;

/// A device that has failed since its VM was built; see [`Vm::device_failures`](crate::Vm::device_failures). It is shown as a line
/// such as `disk 0 (data.img): the backend panicked: index out of bounds`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceFailure {
    /// The device as [`DeviceMetrics::name`](crate::DeviceMetrics::name) and the log call it: `disk0`, `nic0`, `device0`.
    pub device: String,
    /// What errors call it, which for a disk or a network card says what it is on: `disk 0 (data.img)`.
    pub label: String,
    /// Why it failed last, when, and how often.
    pub failure: Failure,
}

impl fmt::Display for DeviceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label, self.failure)
    }
}

/// A JSON object with a list of them, for C.
#[cfg_attr(not(any(test, feature = "capi")), expect(dead_code))]
pub(crate) fn failures_json(failures: &[DeviceFailure]) -> String {
    let mut json = Json::default();
    json.object(|json| json.list("failures", failures, write));
    json.into_text()
}

fn write(json: &mut Json, DeviceFailure { device, label, failure }: &DeviceFailure) {
    json.text("device", device);
    json.text("label", label);
    json.text("cause", failure.cause.name());
    json.flag("is_final", failure.cause.is_final());
    json.text("message", &failure.message);
    json.time("at_ns", failure.at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    json.number("count", failure.count);
    json.flag("needs_reset", failure.needs_reset);
}
