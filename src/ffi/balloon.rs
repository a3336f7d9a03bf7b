//! The balloon: what a configuration says of it, and what a VM's does.

use std::time::Duration;

use super::config::{ConfigObject, set};
use super::convert::{Out, OutArray};
use super::failure::FfiResult;
use super::guard::guard;
use super::objects;
use super::report::{ErrorObject, Report};
use super::vm::VmObject;
use crate::balloon::{BalloonHandle, BalloonStatistics};
use crate::config::BalloonConfig;
use crate::error::{Error, ErrorKind};

/// How long ago the statistics came, in nanoseconds: the first of the numbers that vmcell_vm_balloon_statistics writes.
pub const VMCELL_BALLOON_AGE_NS: usize = 0;
/// Bytes that the guest has swapped in.
pub const VMCELL_BALLOON_SWAP_IN: usize = 1;
/// Bytes that it has swapped out.
pub const VMCELL_BALLOON_SWAP_OUT: usize = 2;
/// Page faults for which it read a disk.
pub const VMCELL_BALLOON_MAJOR_FAULTS: usize = 3;
/// Its other page faults.
pub const VMCELL_BALLOON_MINOR_FAULTS: usize = 4;
/// Bytes that it uses for nothing.
pub const VMCELL_BALLOON_FREE: usize = 5;
/// Bytes of all its memory.
pub const VMCELL_BALLOON_TOTAL: usize = 6;
/// Bytes that could be had without swapping.
pub const VMCELL_BALLOON_AVAILABLE: usize = 7;
/// Bytes of caches that could be given up without swapping.
pub const VMCELL_BALLOON_CACHES: usize = 8;
/// Huge pages that were allocated.
pub const VMCELL_BALLOON_HUGE_PAGE_ALLOCATIONS: usize = 9;
/// Huge pages that were asked for, and not there.
pub const VMCELL_BALLOON_HUGE_PAGE_FAILURES: usize = 10;
/// Processes that the guest has ended because memory ran out (Linux 6.12, as is what follows).
pub const VMCELL_BALLOON_OOM_KILLS: usize = 11;
/// How often an allocation had to wait.
pub const VMCELL_BALLOON_ALLOCATION_STALLS: usize = 12;
/// Pages that were looked at, to reclaim them, in the background.
pub const VMCELL_BALLOON_ASYNC_SCANS: usize = 13;
/// Pages that were looked at, to reclaim them, while an allocation waited.
pub const VMCELL_BALLOON_DIRECT_SCANS: usize = 14;
/// Pages that were reclaimed in the background.
pub const VMCELL_BALLOON_ASYNC_RECLAIMS: usize = 15;
/// Pages that were reclaimed while an allocation waited.
pub const VMCELL_BALLOON_DIRECT_RECLAIMS: usize = 16;

/// Gives the guest a balloon (virtio 1.2, section 5.5), by which it gives memory back to the host. It is asked for `mib` MiB from the
/// beginning, at most its RAM. If `deflate_on_oom` is not 0, it may take memory back by itself rather than end a process when memory runs
/// out. If `reporting` is not 0, it reports pages that it has freed, which go back to the host at once and are taken again when it uses
/// them. It is asked for statistics every `statistics_s` seconds, at most 86400, or only by vmcell_vm_balloon_statistics if that is 0. The
/// VM's I/O thread serves it. Without this call there is none. Never blocks.
///
/// vmcell_vm_new refuses it with INVALID_CONFIG if one of these is out of range, and if the memory cannot be given back: on
/// VMCELL_PAGES_HUGE_2_MIB, locked, or on a memfd of a host that overcommits no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_config_set_balloon(
    config: *mut ConfigObject,
    mib: u64,
    deflate_on_oom: i32,
    reporting: i32,
    statistics_s: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let (deflate_on_oom, reporting) = (deflate_on_oom != 0, reporting != 0);
        let balloon = BalloonConfig { mib, deflate_on_oom, reporting, statistics_s };
        set(config, |description| description.config.balloon = Some(balloon))
    })
}

fn balloon(vm: *const VmObject) -> FfiResult<BalloonHandle> {
    Ok(objects::get(vm)?.vm().balloon()?)
}

/// Asks the guest to have given back `bytes` bytes in all, in whole pages of 4096: a remainder is left out. It gives more, or takes some
/// back, as fast as it can; vmcell_vm_balloon_state tells how far it is. A guest without a driver does nothing. Never blocks.
///
/// Errors: INVALID_CONFIG if that is more than the guest's RAM, or if the VM has no balloon.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_balloon_set_target(
    vm: *mut VmObject,
    bytes: u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(balloon(vm)?.set_target(bytes)?))
}

/// Has the guest asked for statistics every `seconds` seconds, at most 86400, or never by itself if that is 0. Never blocks.
///
/// Errors: INVALID_CONFIG if it is more, or if the VM has no balloon.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_balloon_set_statistics_interval(
    vm: *mut VmObject,
    seconds: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || Ok(balloon(vm)?.set_statistics_interval(Duration::from_secs(seconds.into()))?))
}

/// Writes how many bytes the guest was asked to give back to `target`, how many its driver says that it has given back to `actual`, and
/// how many bytes of free pages it has reported, and the host got back, since the VM was made to `reported`. Never blocks.
///
/// Errors: INVALID_CONFIG if the VM has no balloon.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_balloon_state(
    vm: *const VmObject,
    target: *mut u64,
    actual: *mut u64,
    reported: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or places for the results.
        let places =
            unsafe { (Out::new(target, "target")?, Out::new(actual, "actual")?, Out::new(reported, "reported")?) };
        let balloon = balloon(vm)?;
        places.0.write(balloon.target());
        places.1.write(balloon.actual());
        places.2.write(balloon.reported());
        Ok(())
    })
}

/// Asks the guest what it says of its memory now, and waits for the answer for at most `limit_ms` milliseconds; with 0, it takes what
/// the guest said last. Writes the numbers to `values`, which has room for `capacity`, each at the index VMCELL_BALLOON_*, and how many
/// numbers there are to `count`, which may be more, and grows with later versions. What the guest does not say is UINT64_MAX. Nothing of it
/// is checked: a guest says what it likes.
///
/// Errors: TIMEOUT if it has not answered, or with 0, if it has said nothing yet; INVALID_CONFIG if the VM has no balloon; INVALID_STATE
/// in a function that an I/O thread calls unless `limit_ms` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_vm_balloon_statistics(
    vm: *const VmObject,
    limit_ms: u32,
    values: *mut u64,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let count = unsafe { Out::new(count, "count") }?;
        // SAFETY: the header demands NULL or that many places.
        let places = unsafe { OutArray::new(values, capacity, "values") }?;
        let balloon = balloon(vm)?;
        let said = match limit_ms {
            0 => balloon.statistics().ok_or_else(|| {
                Error::new(
                    ErrorKind::Timeout,
                    "the guest has said nothing of its memory yet, its driver may not be there",
                )
            })?,
            _ => balloon.statistics_within(Duration::from_millis(limit_ms.into()))?,
        };
        let numbers = numbers(&said);
        places.write(&numbers);
        count.write(numbers.len());
        Ok(())
    })
}

/// Each at its index.
fn numbers(said: &BalloonStatistics) -> [u64; 17] {
    let mut numbers = [u64::MAX; 17];
    let age = u64::try_from(said.age.as_nanos()).unwrap_or(u64::MAX);
    let known = [
        (VMCELL_BALLOON_AGE_NS, Some(age)),
        (VMCELL_BALLOON_SWAP_IN, said.swap_in),
        (VMCELL_BALLOON_SWAP_OUT, said.swap_out),
        (VMCELL_BALLOON_MAJOR_FAULTS, said.major_faults),
        (VMCELL_BALLOON_MINOR_FAULTS, said.minor_faults),
        (VMCELL_BALLOON_FREE, said.free),
        (VMCELL_BALLOON_TOTAL, said.total),
        (VMCELL_BALLOON_AVAILABLE, said.available),
        (VMCELL_BALLOON_CACHES, said.caches),
        (VMCELL_BALLOON_HUGE_PAGE_ALLOCATIONS, said.huge_page_allocations),
        (VMCELL_BALLOON_HUGE_PAGE_FAILURES, said.huge_page_failures),
        (VMCELL_BALLOON_OOM_KILLS, said.oom_kills),
        (VMCELL_BALLOON_ALLOCATION_STALLS, said.allocation_stalls),
        (VMCELL_BALLOON_ASYNC_SCANS, said.async_scans),
        (VMCELL_BALLOON_DIRECT_SCANS, said.direct_scans),
        (VMCELL_BALLOON_ASYNC_RECLAIMS, said.async_reclaims),
        (VMCELL_BALLOON_DIRECT_RECLAIMS, said.direct_reclaims),
    ];
    for (index, number) in known {
        if let (Some(place), Some(number)) = (numbers.get_mut(index), number) {
            *place = number;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_stands_at_its_index_and_what_is_not_said_is_none() {
        assert_eq!(numbers(&BalloonStatistics::default())[1..], [u64::MAX; 16]);
        let mut said = BalloonStatistics { age: Duration::from_nanos(7), ..BalloonStatistics::default() };
        (said.swap_in, said.free, said.direct_reclaims) = (Some(1), Some(5), Some(16));
        let numbers = numbers(&said);
        assert_eq!([0, 1, 2, 5, 16].map(|index: usize| numbers[index]), [7, 1, u64::MAX, 5, 16]);
    }
}
