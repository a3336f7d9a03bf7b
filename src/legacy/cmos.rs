//! Ports 0x70 and 0x71: the clock and the configuration memory of a PC.

use crate::bus::BusDevice;

/// A clock that isn't there; it answers with zeros.
///
/// Linux reads the update flag of status register A until it is clear. An absent port reads 0xff, so Linux would wait
/// for ever. The guest's time of day comes from kvm-clock.
pub(crate) struct Cmos;

impl BusDevice for Cmos {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}
