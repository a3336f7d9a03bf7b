//! What is counted.

use crate::meter::{Counter, Meter};

#[derive(Clone, Default)]
pub(crate) struct Counters {
    requests: Counter,
    refused: Counter,
    pub(super) connections: Counter,
    pub(crate) failures: Counter,
}

impl Counters {
    /// An answer with this status.
    pub(super) fn count(&self, status: u16) {
        self.requests.add(1);
        if status >= 400 {
            self.refused.add(1);
        }
    }

    pub(super) fn tell(&self, meter: &mut Meter) {
        meter.counter("metadata_requests", &self.requests);
        meter.counter("metadata_refused", &self.refused);
        meter.counter("metadata_connections", &self.connections);
        meter.counter("metadata_failures", &self.failures);
    }
}
