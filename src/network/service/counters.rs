//! What became of a service's flows and packets.

use crate::meter::{Counter, Meter};

#[derive(Clone, Debug, Default)]
pub(in crate::network) struct Counters {
    pub(in crate::network) flows: Counter,
    pub(in crate::network) held: Counter,
    pub(in crate::network) replayed: Counter,
    pub(in crate::network) refused: Counter,
    pub(in crate::network) calls: Counter,
    pub(in crate::network) calls_refused: Counter,
}

impl Counters {
    pub(super) fn tell(&self, meter: &mut Meter) {
        for (name, counter) in [
            ("service_flows", &self.flows),
            ("service_held", &self.held),
            ("service_replayed", &self.replayed),
            ("service_refused", &self.refused),
            ("service_calls", &self.calls),
            ("service_calls_refused", &self.calls_refused),
        ] {
            meter.counter(name, counter);
        }
    }
}
