//! x86_64: a PC without a PC's firmware.
//!
//! | Question | File |
//! |---|---|
//! | Where is what in the guest's address space? | `layout` |
//! | How do kernel, initrd and command line get into memory? | `boot` |
//! | What does the `cpuid` instruction answer? | `cpuid`, of what `cpu_level` leaves |
//! | Can a guest that was saved go on with this host's CPU? | `cpu_here` |
//! | Where does the guest start, and with which registers? | `entry`, `regs`, `msr` |
//! | What if the guest jumps to the firmware? | `reset_vector` |
//! | How does the guest find what the host tells it in words? | `smbios` |
//! | How does the guest find its CPUs and devices? | `platform`, written by `acpi`, `mp_table` and `boot::cmdline` |

mod acpi;
mod boot;
mod cpu_features;
mod cpu_here;
mod cpu_level;
mod cpuid;
mod entry;
mod layout;
mod mp_table;
mod msr;
mod platform;
mod regs;
mod reset_vector;
#[cfg(feature = "secret")]
mod smbios;

pub(crate) use boot::{Images, load};
pub(crate) use cpu_here::{check_cpu, offered_cpu};
pub(crate) use cpu_level::{lacks_of_levels, limit as limit_cpu};
pub(crate) use cpuid::cpu_identity;
pub(crate) use entry::Entry;
pub(crate) use layout::{
    CMOS_PORT, CMOS_PORTS, COM1_GSI, COM1_PORT, COM1_PORTS, GENERATION_GSI, GENERATION_ID, I8042_PORT, I8042_PORTS,
    KVM_IDENTITY_MAP, KVM_TSS, MAX_MMIO_DEVICES, MMIO_DEVICE_SIZE, MmioSlot, PANIC_PORT, PANIC_PORTS, POWER_BUTTON_GSI,
    POWER_PORT, POWER_PORTS, RESET_VALUE, SLEEP_TYPE_S5, memory_layout, mmio_device,
};
pub(crate) use platform::Platform;
#[cfg(feature = "secret")]
pub(crate) use smbios::{BLANK, MOST_OEM_STRINGS, OEM_STRINGS_ROOM, write_oem_strings};

use crate::error::{Error, ErrorKind, Result};
use crate::kvm::{CpuidEntry, LocalApicLine, Vcpu};

/// Delivery modes of a LAPIC's local interrupt lines (Intel SDM, volume 3, section 11.5.1).
const DELIVER_NMI: u8 = 4;
const DELIVER_EXTINT: u8 = 7;

/// Refuses more memory than the host's CPU can address; KVM would find out only when the guest uses it.
pub(crate) fn check_memory_size(bytes: u64, supported: &[CpuidEntry]) -> Result<()> {
    // The leaf may be missing; every CPU with long mode has 36 bits.
    let bits = supported.iter().find(|entry| entry.function == 0x8000_0008).map_or(36, |entry| entry.eax & 0xff);
    let most = 1u64
        .checked_shl(bits)
        .map_or(u64::MAX, |space| space.saturating_sub(layout::MMIO_GAP_END - layout::MMIO_GAP_START));
    if bytes <= most {
        return Ok(());
    }
    let message = format!(
        "{} MiB of memory were asked for, allowed are {} MiB on this host, whose CPU has {bits} physical address bits",
        bytes >> 20,
        most >> 20
    );
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// Brings a vCPU into the state in which a boot loader hands over to a kernel.
///
/// `supported` lists what KVM can give, `vcpus` is the number of the machine's vCPUs. The first vCPU gets the registers
/// that `entry` asks for; the others stay as KVM made them, and wait until the guest starts them through their LAPICs.
///
/// # Errors
/// `ErrorKind::Kvm` if KVM refuses a part of it.
pub(crate) fn setup_vcpu(vcpu: &Vcpu, supported: &[CpuidEntry], vcpus: u32, entry: &Entry) -> Result<()> {
    // A host whose counter has no fixed frequency cannot tell it; the guest then finds out for itself.
    let tsc_khz = vcpu.tsc_khz().ok();
    vcpu.set_cpuid(&cpuid::entries(supported, &cpuid::Topology { vcpus, index: vcpu.index() }, tsc_khz))?;
    msr::set(vcpu)?;
    vcpu.reset_fpu()?;
    vcpu.set_lapic_lines(&[(LocalApicLine::Lint0, DELIVER_EXTINT), (LocalApicLine::Lint1, DELIVER_NMI)])?;
    if vcpu.index() == 0 {
        regs::set(vcpu, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_cpu_cannot_address_is_refused() {
        let with_bits = |bits: u32| [CpuidEntry { function: 0x8000_0008, eax: 0x3000 | bits, ..Default::default() }];
        let gap = 1 << 30;
        for (supported, most) in [(with_bits(39).as_slice(), (1 << 39) - gap), (&[], (1 << 36) - gap)] {
            check_memory_size(most, supported).unwrap();
            assert_eq!(check_memory_size(most + 1, supported).unwrap_err().kind(), ErrorKind::InvalidConfig);
        }
        check_memory_size(u64::MAX, &with_bits(64)).unwrap();
        let error = check_memory_size(1 << 39, &with_bits(39)).unwrap_err();
        assert!(
            error.to_string().ends_with("allowed are 523264 MiB on this host, whose CPU has 39 physical address bits")
        );
    }
}
