//! The state of what KVM plays of a PC beside its CPUs: the interrupt controllers, the interval timer and the clock.

use std::time::{Duration, SystemTime};

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
    kvm_pit_channel_state, kvm_pit_state2,
};

use super::registers::{FromKvm, ToKvm};
use crate::error::{Error, ErrorKind, Result};
use crate::kvm::KvmVm;
use crate::kvm::refused::refused;

/// Each of KVM's interrupt controllers fits in so many bytes.
const CONTROLLER_LEN: usize = 512;
/// In the order in which they are saved.
const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// The state of the interrupt controllers, the interval timer and the clock of a VM whose vCPUs stand still.
///
/// [`KvmVm::chips_state`] makes it, [`KvmVm::set_chips_state`] reads it. Its fields are public so that it can be stored and changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct ChipsState {
    /// The version of this format, [`VERSION`](Self::VERSION).
    pub version: u32,
    /// The two PICs and the IOAPIC, each in KVM's layout of 512 bytes (`struct kvm_irqchip`).
    #[cfg_attr(feature = "serde", serde(with = "crate::config::hex::three"))]
    pub controllers: [Vec<u8>; 3],
    /// The channels of the interval timer.
    pub timer: [TimerChannel; 3],
    /// Flags of the interval timer (`KVM_PIT_FLAGS_*`).
    pub timer_flags: u32,
    /// The guest's clock (kvm-clock) in nanoseconds.
    pub clock_ns: u64,
    /// What the host's clock on the wall said at that moment, in nanoseconds since 1970.
    pub wall_clock_ns: u64,
}

impl ChipsState {
    /// The version of the format that this version of the crate writes, and the only one that it reads.
    pub const VERSION: u32 = 1;
}

/// A channel of the interval timer, as KVM keeps it (`struct kvm_pit_channel_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(missing_docs, reason = "named as in KVM's interface")]
pub struct TimerChannel {
    pub count: u32,
    pub latched_count: u16,
    pub count_latched: u8,
    pub status_latched: u8,
    pub status: u8,
    pub read_state: u8,
    pub write_state: u8,
    pub write_latch: u8,
    pub rw_mode: u8,
    pub mode: u8,
    pub bcd: u8,
    pub gate: u8,
    pub count_load_time: i64,
}

impl KvmVm {
    /// Returns the state of the interrupt controllers, the interval timer and the clock, while no vCPU runs.
    ///
    /// # Errors
    /// [`ErrorKind::Kvm`] if there is no irqchip or no interval timer.
    pub fn chips_state(&self) -> Result<ChipsState> {
        let timer = self.fd().get_pit2().map_err(|e| refused("read the interval timer", e))?;
        let clock = self.fd().get_clock().map_err(|e| refused("read the guest's clock", e))?;
        let [master, slave, ioapic] = CONTROLLERS.map(|number| self.controller(number));
        Ok(ChipsState {
            version: ChipsState::VERSION,
            controllers: [master?, slave?, ioapic?],
            timer: timer.channels.map(TimerChannel::from_kvm),
            timer_flags: timer.flags,
            clock_ns: clock.clock,
            // Of the same moment if KVM tells it (since Linux 5.16), otherwise of the next.
            wall_clock_ns: if clock.flags & KVM_CLOCK_REALTIME != 0 { clock.realtime } else { wall_clock_ns() },
        })
    }

    /// Puts the interrupt controllers, the interval timer and the clock into this state, before a vCPU has run.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the state is of another version, or a controller's has another size; [`ErrorKind::Kvm`] if there is no irqchip or
    /// no interval timer, or KVM refuses the state.
    pub fn set_chips_state(&self, state: &ChipsState) -> Result<()> {
        state.check()?;
        for (number, bytes) in CONTROLLERS.into_iter().zip(&state.controllers) {
            self.set_controller(number, bytes)?;
        }
        let channels = state.timer.map(|channel| channel.to_kvm());
        let timer = kvm_pit_state2 { channels, flags: state.timer_flags, ..Default::default() };
        self.fd().set_pit2(&timer).map_err(|e| refused("set the interval timer", e))?;
        let clock = kvm_clock_data { clock: state.clock_ns, ..Default::default() };
        self.fd().set_clock(&clock).map_err(|e| refused("set the guest's clock", e))
    }

    fn controller(&self, number: u32) -> Result<Vec<u8>> {
        let mut chip = kvm_irqchip { chip_id: number, ..Default::default() };
        self.fd().get_irqchip(&mut chip).map_err(|e| refused("read an interrupt controller", e))?;
        // SAFETY: all of the union's bytes are initialized, by `default` or by KVM, and any value is one of a byte.
        let bytes = unsafe { chip.chip.dummy };
        Ok(bytes.iter().map(|byte| byte.cast_unsigned()).collect())
    }

    fn set_controller(&self, number: u32, bytes: &[u8]) -> Result<()> {
        let mut dummy = [0; CONTROLLER_LEN];
        for (theirs, byte) in dummy.iter_mut().zip(bytes) {
            *theirs = byte.cast_signed();
        }
        let mut chip = kvm_irqchip { chip_id: number, ..Default::default() };
        chip.chip.dummy = dummy;
        self.fd().set_irqchip(&chip).map_err(|e| refused("set an interrupt controller", e))
    }
}

/// What the host's clock on the wall says, in nanoseconds since 1970.
fn wall_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl ChipsState {
    /// How long ago it was taken, by the host's clock on the wall. None at all if that clock went back since.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_nanos(wall_clock_ns().saturating_sub(self.wall_clock_ns))
    }

    /// The state with a clock by which so much more time has passed.
    pub(crate) fn later(&self, passed: Duration) -> Self {
        let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        Self { clock_ns: self.clock_ns.saturating_add(passed), ..self.clone() }
    }

    fn check(&self) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if self.version != Self::VERSION {
            let (version, known) = (self.version, Self::VERSION);
            return refused(format!(
                "the saved state of the interrupt controllers has version {version}, known is {known}"
            ));
        }
        if let Some(controller) = self.controllers.iter().find(|controller| controller.len() != CONTROLLER_LEN) {
            let len = controller.len();
            return refused(format!("a saved interrupt controller has {len} bytes, allowed are {CONTROLLER_LEN}"));
        }
        Ok(())
    }
}

super::registers::same_fields!(TimerChannel, kvm_pit_channel_state:
    count, latched_count, count_latched, status_latched, status, read_state, write_state, write_latch, rw_mode, mode, bcd, gate,
    count_load_time);
