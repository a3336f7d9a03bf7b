//! The registers that turn a guest with ACPI's reduced hardware off, or reset it.

use crate::bus::BusDevice;

/// Offsets inside the device's three ports.
const SLEEP_CONTROL: u64 = 0;
const RESET: u64 = 2;

/// Sleep control register: SLP_EN and the field of SLP_TYP (ACPI 6.5, section 4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

/// The values that the ACPI tables promise.
#[derive(Clone, Copy)]
pub(crate) struct PowerValues {
    /// SLP_TYP of S5, soft off.
    pub(crate) soft_off: u8,
    /// The value that resets when written to the reset register.
    pub(crate) reset: u8,
}

/// Sleep control, sleep status and reset register, one port each.
pub(crate) struct Power<F> {
    values: PowerValues,
    on_request: F,
}

/// A request of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    SoftOff,
    Reset,
}

impl<F: Fn(PowerRequest) + Send + Sync> Power<F> {
    /// The vCPU thread that asks calls `on_request`.
    pub(crate) fn new(values: PowerValues, on_request: F) -> Self {
        Self { values, on_request }
    }
}

impl<F: Fn(PowerRequest) + Send + Sync> BusDevice for Power<F> {
    fn read(&self, _offset: u64, _data: &mut [u8]) {
        // The wake status bit stays clear: there is no sleep to wake from.
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let [value] = *data else { return };
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        match offset {
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 && sleep_type == self.values.soft_off => {
                (self.on_request)(PowerRequest::SoftOff);
            }
            RESET if value == self.values.reset => (self.on_request)(PowerRequest::Reset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn only_the_promised_values_end_the_vm() {
        let requests = Mutex::new(Vec::new());
        let power = Power::new(PowerValues { soft_off: 5, reset: 1 }, |request| requests.lock().unwrap().push(request));
        for value in 0..=0xff {
            power.write(0, &[value]);
            power.write(1, &[value]);
            power.write(2, &[value]);
        }
        // SLP_EN with type 5; bits 0, 1, 6 and 7 are reserved and ignored, so 16 values mean it.
        let requests = requests.into_inner().unwrap();
        assert_eq!(requests.iter().filter(|request| **request == PowerRequest::SoftOff).count(), 16);
        assert_eq!(requests.iter().filter(|request| **request == PowerRequest::Reset).count(), 1);
    }
}
