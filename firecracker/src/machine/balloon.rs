//! The balloon.

use std::time::Duration;

use vmcell::{BalloonConfig, BalloonHandle, Vm};

use crate::api::{Balloon, BalloonStatistics};
use crate::fault::Fault;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

/// Refuses what no balloon can be in a guest of so many MiB.
pub fn check(balloon: &Balloon, memory_mib: u64) -> Result<(), Fault> {
    check_target(balloon.amount_mib, memory_mib)?;
    if balloon.free_page_hinting {
        return Err(Fault::not_there("free_page_hinting", "vmcell's balloon has free_page_reporting alone"));
    }
    Ok(())
}

/// Refuses a target that is more than there is.
pub fn check_target(target_mib: u32, memory_mib: u64) -> Result<(), Fault> {
    if u64::from(target_mib) <= memory_mib {
        return Ok(());
    }
    let message = format!("balloon: amount_mib is {target_mib}, allowed are 0 to {memory_mib}, the guest's memory");
    Err(Fault::new(message))
}

/// The balloon of the machine that is built.
pub fn balloon(balloon: &Balloon) -> BalloonConfig {
    BalloonConfig::new()
        .mib(balloon.amount_mib.into())
        .deflate_on_oom(balloon.deflate_on_oom)
        .reporting(balloon.free_page_reporting)
        .statistics_every(Duration::from_secs(balloon.stats_polling_interval_s.into()))
}

/// That of a machine that runs.
pub fn handle(vm: &Vm) -> Result<BalloonHandle, Fault> {
    vm.balloon().map_err(refused)
}

/// Takes the target that the balloon has, whatever it was said to be.
pub fn read_target(balloon: &mut Balloon, handle: &BalloonHandle) {
    let mib = handle.target().checked_div(MIB).unwrap_or_default();
    balloon.amount_mib = u32::try_from(mib).unwrap_or(balloon.amount_mib);
}

/// What a balloon refuses.
pub fn refused(error: vmcell::Error) -> Fault {
    Fault::of("balloon", &error)
}

/// What it holds, and what the guest said last.
pub fn statistics(handle: &BalloonHandle) -> BalloonStatistics {
    let whole = |bytes: u64, unit: u64| bytes.checked_div(unit).unwrap_or_default();
    let (target, actual) = (handle.target(), handle.actual());
    let mut told = BalloonStatistics {
        target_pages: whole(target, PAGE),
        actual_pages: whole(actual, PAGE),
        target_mib: whole(target, MIB),
        actual_mib: whole(actual, MIB),
        ..BalloonStatistics::default()
    };
    if let Some(said) = handle.statistics() {
        (told.swap_in, told.swap_out) = (said.swap_in, said.swap_out);
        (told.major_faults, told.minor_faults) = (said.major_faults, said.minor_faults);
        (told.free_memory, told.total_memory) = (said.free, said.total);
        (told.available_memory, told.disk_caches) = (said.available, said.caches);
        told.hugetlb_allocations = said.huge_page_allocations;
        told.hugetlb_failures = said.huge_page_failures;
        (told.oom_kill, told.alloc_stall) = (said.oom_kills, said.allocation_stalls);
        (told.async_scan, told.direct_scan) = (said.async_scans, said.direct_scans);
        (told.async_reclaim, told.direct_reclaim) = (said.async_reclaims, said.direct_reclaims);
    }
    told
}
