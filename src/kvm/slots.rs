//! A VM's memory slots, and what keeps the memory behind them mapped.

use std::sync::Mutex;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;

use super::refused::refused;
use crate::error::Result;
use crate::memory::{GuestMemory, MemoryRegion};
use crate::sys::lock;

/// The memory that the guest can reach. The VM and each of its vCPUs share it, so it stays mapped until the last of them
/// is gone: KVM writes through host addresses, and would reach whatever is mapped there next.
#[derive(Default)]
pub(super) struct MemorySlots(Mutex<State>);

#[derive(Default)]
struct State {
    /// Never shrinks, except by memory whose slots are all gone again.
    held: Vec<GuestMemory>,
    next_slot: u32,
}

impl MemorySlots {
    /// Puts each region of `memory` into a slot of its own. If KVM refuses one, those before it are taken away again.
    pub(super) fn add(&self, fd: &VmFd, memory: &GuestMemory) -> Result<()> {
        let mut state = lock(&self.0);
        // Held before KVM learns of it: a vCPU that runs meanwhile can reach a region as soon as it has its slot.
        state.held.push(memory.clone());
        let first = state.next_slot;
        for region in memory.regions() {
            if let Err(e) = set_slot(fd, state.next_slot, &region, region.len) {
                let what = format!("map guest memory gpa={} len={:#x}", region.start, region.len);
                if (first..state.next_slot).zip(memory.regions()).all(|(slot, gone)| clear_slot(fd, slot, &gone)) {
                    state.next_slot = first;
                    state.held.pop();
                }
                return Err(refused(&what, e));
            }
            state.next_slot = state.next_slot.saturating_add(1);
        }
        Ok(())
    }
}

/// Empties a slot and says whether that worked. No vCPU reaches the region any more then: KVM waits for those that do.
fn clear_slot(fd: &VmFd, slot: u32, region: &MemoryRegion) -> bool {
    set_slot(fd, slot, region, 0).is_ok()
}

fn set_slot(fd: &VmFd, slot: u32, region: &MemoryRegion, len: u64) -> std::result::Result<(), kvm_ioctls::Error> {
    let entry = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: region.start.0,
        memory_size: len,
        userspace_addr: region.host_address,
    };
    // SAFETY: the range is a whole mapping that a `GuestMemory` owns. A clone of that is in `held`, which lives until
    // neither the VM nor a vCPU is left, so KVM cannot reach it after it was unmapped. No Rust reference ever points into
    // it: all access of ours is by volatile copies or by the kernel, so the guest's writes race with no reference.
    unsafe { fd.set_user_memory_region(entry) }
}
