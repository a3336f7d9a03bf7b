//! The device status register: which of the driver's writes are steps that the specification knows (2.1, 3.1.1).

use crate::virtio::spec::status::{ACKNOWLEDGE, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};

const STEPS: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;

/// The bits that the driver has set. DEVICE_NEEDS_RESET is the device's, and stands elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceStatus(u32);

/// What a write to the register means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// Back to the beginning.
    Reset,
    /// Not a step from here: nothing changes.
    Refused,
    /// The new status; `negotiates` if the features must be accepted first, `activates` if the driver is ready.
    Forward { next: DeviceStatus, negotiates: bool, activates: bool },
}

impl DeviceStatus {
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// A status that was saved; `None` if no driver can reach it.
    pub(super) fn restore(bits: u32) -> Option<Self> {
        let status = Self(bits);
        let whole = bits & !STEPS == 0
            && (!status.has(DRIVER) || status.has(ACKNOWLEDGE))
            && (!status.has(FEATURES_OK) || status.has(DRIVER))
            && (!status.has(DRIVER_OK) || status.has(FEATURES_OK));
        whole.then_some(status)
    }

    /// The driver is ready.
    pub(super) fn is_driver_ok(self) -> bool {
        self.has(DRIVER_OK) && !self.has(FAILED)
    }

    /// The features are agreed on.
    pub(super) fn has_features(self) -> bool {
        self.has(FEATURES_OK)
    }

    /// The driver may set features.
    pub(super) fn may_set_features(self) -> bool {
        self.has(DRIVER) && !self.has(FEATURES_OK) && !self.has(FAILED)
    }

    /// The driver may set up queues.
    pub(super) fn may_set_queues(self) -> bool {
        self.has(FEATURES_OK) && !self.has(DRIVER_OK) && !self.has(FAILED)
    }

    /// The driver may write to the config space.
    pub(super) fn may_set_config(self) -> bool {
        self.has(DRIVER) && !self.has(FAILED)
    }

    /// What a write of `value` means from here.
    pub(super) fn after(self, value: u32) -> StatusWrite {
        if value == 0 {
            return StatusWrite::Reset;
        }
        // Drivers write back what they read, so the device's own bit may come along.
        let next = Self(value & !DEVICE_NEEDS_RESET);
        let added = next.0 & !self.0;
        let clears = self.0 & !next.0 != 0;
        let unknown = next.0 & !STEPS != 0;
        let early = (next.has(DRIVER) && !next.has(ACKNOWLEDGE))
            || (next.has(FEATURES_OK) && !next.has(DRIVER))
            // The driver reads FEATURES_OK back before it goes on, so both cannot come at once.
            || (added & DRIVER_OK != 0 && !self.has(FEATURES_OK));
        if clears || unknown || early || added == 0 || self.has(FAILED) {
            return StatusWrite::Refused;
        }
        let fails = next.has(FAILED);
        StatusWrite::Forward { next, negotiates: added & FEATURES_OK != 0, activates: added & DRIVER_OK != 0 && !fails }
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(values: &[u32]) -> DeviceStatus {
        values.iter().fold(DeviceStatus::default(), |status, value| match status.after(*value) {
            StatusWrite::Forward { next, .. } => next,
            other => panic!("{value:#x} from {status:?} gave {other:?}"),
        })
    }

    #[test]
    fn the_driver_s_way_up_is_accepted() {
        let ready = walk(&[1, 3, 11, 15]);
        assert_eq!(ready.bits(), 15);
        assert_eq!(ready.after(0), StatusWrite::Reset);
        assert!(matches!(walk(&[1, 3]).after(11), StatusWrite::Forward { negotiates: true, activates: false, .. }));
        assert!(matches!(walk(&[1, 3, 11]).after(15), StatusWrite::Forward { negotiates: false, activates: true, .. }));
    }

    /// Every value from every reachable state, against the rules as the specification words them.
    #[test]
    fn every_write_from_every_state_keeps_the_rules() {
        let mut states = vec![DeviceStatus::default()];
        let mut seen = 0;
        while let Some(state) = states.get(seen).copied() {
            seen += 1;
            for value in (0..=0x1ff).chain([0x8000_0000, u32::MAX]) {
                match state.after(value) {
                    StatusWrite::Reset => assert_eq!(value, 0),
                    StatusWrite::Refused => assert_ne!(value, 0),
                    StatusWrite::Forward { next, negotiates, activates } => {
                        assert_eq!(next.bits(), value & !DEVICE_NEEDS_RESET);
                        assert_eq!(state.bits() & !next.bits(), 0, "a bit was cleared");
                        assert_eq!(negotiates, next.has(FEATURES_OK) && !state.has(FEATURES_OK));
                        assert!(!next.has(DRIVER_OK) || next.has(FEATURES_OK));
                        assert!(!next.has(FEATURES_OK) || next.has(DRIVER));
                        assert!(!next.has(DRIVER) || next.has(ACKNOWLEDGE));
                        assert!(!(activates && state.has(DRIVER_OK)), "activated twice");
                        assert!(!state.has(FAILED));
                        if !states.contains(&next) {
                            states.push(next);
                        }
                    }
                }
            }
        }
        assert_eq!(states.len(), 10, "{states:?}");
    }

    #[test]
    fn the_device_s_own_bit_written_back_changes_nothing() {
        let ready = walk(&[1, 3, 11]);
        assert!(matches!(ready.after(15 | DEVICE_NEEDS_RESET), StatusWrite::Forward { next: DeviceStatus(15), .. }));
        assert_eq!(ready.after(11 | DEVICE_NEEDS_RESET), StatusWrite::Refused);
    }
}
