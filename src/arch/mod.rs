//! Everything that differs between CPU families: where memory and devices lie, how a kernel is loaded and entered, and
//! the state in which a vCPU starts.
//!
//! Not here: ioctls (`kvm`), the devices at the addresses named here (`legacy`, `virtio`), and how they are put there
//! (`board`). `board` and `vm` call this room while they build a machine, and nothing of it runs afterwards. The present
//! CPU family is x86_64, and only `arch`, `board` and `kvm` know that.

mod x86_64;

#[cfg(feature = "secret")]
pub(crate) use x86_64::{BLANK, MOST_OEM_STRINGS, OEM_STRINGS_ROOM, write_oem_strings};
pub(crate) use x86_64::{
    CMOS_PORT, CMOS_PORTS, COM1_GSI, COM1_PORT, COM1_PORTS, GENERATION_GSI, GENERATION_ID, I8042_PORT, I8042_PORTS,
    Images, KVM_IDENTITY_MAP, KVM_TSS, MAX_MMIO_DEVICES, MMIO_DEVICE_SIZE, MmioSlot, PANIC_PORT, PANIC_PORTS,
    POWER_BUTTON_GSI, POWER_PORT, POWER_PORTS, Platform, RESET_VALUE, SLEEP_TYPE_S5, check_cpu, check_memory_size,
    cpu_identity, lacks_of_levels, limit_cpu, load, memory_layout, mmio_device, offered_cpu, setup_vcpu,
};
