//! A vCPU's time-stamp counter: how fast it is, and how far ahead of the host's.

use std::time::Duration;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::state::VcpuState;
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::Vcpu;
use crate::kvm::refused::refused;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// The counter itself.
pub(super) const IA32_TSC: u32 = 0x10;

/// Frequencies that differ by no more, in millionths, are the same to KVM, unless it was loaded with another limit (its parameter
/// `tsc_tolerance_ppm`).
const TOLERANCE_PPM: u64 = 250;

/// How a saved time-stamp counter is set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    /// By its register, as KVM sees fit: it takes a value that is less than a second off for the one that the counter should have by itself,
    /// so that counters that are set one after the other are in step. So before Linux 6.6, a young counter does not change.
    Written,
    /// To the very value, if KVM can. Counters of other vCPUs are then set by how far they are ahead.
    Exact,
    /// So far ahead of the host's, modulo 2^64, if KVM can.
    Ahead(u64),
}

impl Vcpu {
    /// How far the counter is ahead of the host's, modulo 2^64. `None` if KVM does not tell, as before Linux 5.16.
    pub(crate) fn tsc_offset(&self) -> Option<u64> {
        let mut offset = 0u64;
        let attribute = offset_at((&raw mut offset).expose_provenance());
        // SAFETY: KVM reads the attribute, and writes 8 bytes to the address in it, which is that of `offset`. Both outlive the call.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_GET_DEVICE_ATTR(), &attribute) };
        (result == 0).then_some(offset)
    }

    /// Has the counter be so far ahead; says whether KVM does that.
    pub(super) fn set_tsc_offset(&self, offset: u64) -> bool {
        let attribute = offset_at((&raw const offset).expose_provenance());
        // SAFETY: KVM reads the attribute, and 8 bytes at the address in it, which is that of `offset`. Both outlive the call.
        let result = unsafe { ioctl_with_ref(self.fd(), KVM_SET_DEVICE_ATTR(), &attribute) };
        result == 0
    }

    /// Sets the counter to a value; says whether KVM does that.
    pub(super) fn set_counter(&self, value: u64) -> Result<bool> {
        let Some(offset) = self.tsc_offset() else { return Ok(false) };
        let is = self.msrs(&[IA32_TSC])?;
        let Some((_, is)) = is.first() else { return Ok(false) };
        Ok(self.set_tsc_offset(offset.wrapping_add(value.wrapping_sub(*is))))
    }

    /// Has the counter run at a frequency in kHz, by the host's CPU.
    ///
    /// # Errors
    /// `ErrorKind::InvalidConfig` if that cannot scale it, and the host's own frequency is another; KVM would have it go by jumps then.
    pub(super) fn set_tsc_khz(&self, khz: u32) -> Result<()> {
        let own = self.tsc_khz().ok();
        if own == Some(khz) {
            return Ok(());
        }
        if !self.scales_tsc() && !own.is_some_and(|own| is_same(own, khz)) {
            let own = own.map_or_else(|| "is not known".to_owned(), |own| format!("runs at {own} kHz"));
            let message = format!(
                "a time-stamp counter of {khz} kHz was asked for, allowed is only that of this host, which {own} and which its CPU cannot scale"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.fd().set_tsc_khz(khz).map_err(|e| refused(&format!("run a time-stamp counter at {khz} kHz"), e))
    }
}

fn offset_at(address: usize) -> kvm_device_attr {
    kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: address as u64,
        ..Default::default()
    }
}

fn is_same(own: u32, khz: u32) -> bool {
    u64::from(own.abs_diff(khz)).saturating_mul(1_000_000) <= u64::from(own).saturating_mul(TOLERANCE_PPM)
}

impl VcpuState {
    pub(super) fn counter(&self) -> Option<u64> {
        self.msrs.iter().find(|(number, _)| *number == IA32_TSC).map(|(_, value)| *value)
    }

    /// The state with a counter by which so much more time has passed. Without a known frequency, the counter stays.
    pub(crate) fn later(&self, passed: Duration) -> Self {
        let mut state = self.clone();
        let cycles = cycles(passed, self.tsc_khz.unwrap_or(0));
        for (_, value) in state.msrs.iter_mut().filter(|(number, _)| *number == IA32_TSC) {
            *value = value.wrapping_add(cycles);
        }
        state
    }
}

/// How far a counter comes meanwhile, modulo 2^64.
#[expect(clippy::cast_possible_truncation, reason = "the counter has 64 bits, and begins anew behind them")]
fn cycles(passed: Duration, khz: u32) -> u64 {
    (passed.as_nanos().saturating_mul(khz.into()) / 1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frequencies_that_kvm_does_not_tell_apart_are_the_same() {
        assert!(is_same(4_000_000, 4_001_000) && is_same(4_000_000, 3_999_000));
        assert!(!is_same(4_000_000, 4_001_001) && !is_same(4_000_000, 3_998_999));
        assert!(!is_same(0, 1) && is_same(u32::MAX, u32::MAX));
    }

    #[test]
    fn a_day_is_as_many_cycles_as_the_frequency_says() {
        assert_eq!(cycles(Duration::from_secs(86_400), 2_596_135), 86_400 * 2_596_135_000);
        assert_eq!(cycles(Duration::from_micros(1), 999), 0);
        assert_eq!(cycles(Duration::ZERO, u32::MAX), 0);
    }
}
