//! How much a service may take, and its bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// A service has no more members.
pub(in crate::network) const MOST_MEMBERS: usize = 256;
/// A network has no more services.
pub(in crate::network) const MOST_SERVICES: usize = 1024;

const FLOWS: RangeInclusive<usize> = 1..=65536;
const PACKETS: RangeInclusive<usize> = 1..=4096;
const BYTES: RangeInclusive<usize> = 2048..=16 << 20;
const HOLD_TIME: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct ServiceLimits {
    pub(in crate::network) soft: usize,
    pub(in crate::network) hard: usize,
    pub(in crate::network) packets: usize,
    pub(in crate::network) bytes: usize,
    pub(in crate::network) hold_time: Duration,
    pub(in crate::network) interval: Duration,
}

impl ServiceLimits {
    pub(in crate::network) const DEFAULT: Self = Self {
        soft: 1024,
        hard: 1024,
        packets: 256,
        bytes: 256 << 10,
        hold_time: Duration::from_secs(30),
        interval: Duration::from_secs(1),
    };

    pub(in crate::network) fn check(&self) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        let Self { soft, hard, packets, bytes, hold_time, interval } = self;
        if !FLOWS.contains(soft) || !FLOWS.contains(hard) || soft > hard {
            return refused(format!(
                "limits of {soft} and {hard} flows for a member of a service were asked for, allowed are 1 to 65536, the first one no \
                 more than the second"
            ));
        }
        if !PACKETS.contains(packets) {
            return refused(format!("a service that holds {packets} packets was asked for, allowed are 1 to 4096"));
        }
        if !BYTES.contains(bytes) {
            return refused(format!("a service that holds {bytes} bytes was asked for, allowed are 2 KiB to 16 MiB"));
        }
        if !HOLD_TIME.contains(hold_time) {
            return refused(format!(
                "a service that holds packets for {hold_time:?} was asked for, allowed are 100 ms to 5 minutes"
            ));
        }
        if !INTERVAL.contains(interval) {
            return refused(format!(
                "a service that asks the host program once in {interval:?} was asked for, allowed are 10 ms to 1 hour"
            ));
        }
        Ok(())
    }
}
