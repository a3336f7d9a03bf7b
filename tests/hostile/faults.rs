//! The part of `docs/hostile-guests.md` that is about a host that fails, and the check that each test named there, and in SECURITY.md,
//! is one of ours.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::case::Case;

/// What fails, what comes of it, and the tests that show it.
const FAULTS: [(&str, &str, &[&str]); 17] = [
    (
        "storage answers with EIO, ENOSPC, EDQUOT, ENOMEM or EROFS",
        "the request fails; what was flushed before is there, and the next request is served",
        &["storage_that_fails_for_a_while_loses_nothing_that_was_flushed", "errors_of_the_host_are_errors_of_the_disk"],
    ),
    (
        "a full file system",
        "writes fail, reads and what was flushed stay",
        &["a_full_host_fails_writes_and_serves_reads"],
    ),
    (
        "a write that is cut short, by a limit on the size of files (RLIMIT_FSIZE)",
        "it fails, and no signal ends the process",
        &["writes_past_a_limit_on_the_size_of_files_fail_and_what_was_flushed_stays"],
    ),
    (
        "a read that is cut short, by a file that has shrunk",
        "it fails, and what lies before the end is read",
        &[
            "a_disk_that_is_cut_short_fails_its_requests_and_serves_the_rest",
            "a_file_that_ends_early_is_an_error_and_the_next_read_works",
        ],
    ),
    (
        "a file that is cut while a VM has it",
        "no signal: none is mapped, and memory on memfd is sealed",
        &["no_file_that_a_vm_was_given_is_mapped_so_that_none_can_be_cut_under_it"],
    ),
    (
        "a FIFO, a folder or a device instead of a disk's file, or another file in its place",
        "refused by its name",
        &["what_is_no_disk_is_refused_by_name", "a_file_that_is_replaced_before_the_vm_is_built_is_refused"],
    ),
    (
        "a symbolic link to a disk as another disk or as a console's file",
        "refused: it is the same file",
        &[
            "a_disk_given_twice_for_writing_is_refused",
            "a_console_s_file_that_is_a_disk_or_what_the_vm_boots_is_refused_and_left_as_it_is",
        ],
    ),
    (
        "storage that does not answer, or is slow",
        "network cards and other disks on the same thread are served, and the VM is stopped in time",
        &[
            "a_disk_whose_storage_does_not_answer_does_not_hold_up_the_network_beside_it",
            "a_disk_whose_storage_does_not_answer_does_not_hold_up_another_one",
            "an_io_thread_can_be_dropped_although_its_storage_does_not_answer",
        ],
    ),
    (
        "a disk's backend that panics, gives up, breaks a rule or never ends",
        "its disk needs a reset, the host program is told, and others go on",
        &[
            "a_backend_that_ends_itself_is_never_called_again_but_dropped_and_the_host_program_is_told_why",
            "a_backend_that_never_comes_to_an_end_leaves_its_neighbour_alone",
        ],
    ),
    (
        "a card's backend that panics or gives up",
        "its card needs a reset, the host program is told, and others go on",
        &["a_nic_backend_that_ends_itself_is_never_called_again_but_dropped_and_the_host_program_is_told_why"],
    ),
    ("a TAP device that is full", "frames wait, without CPU time", &["a_full_wire_is_waited_for"]),
    (
        "a TAP device that is deleted, or set down for a while",
        "frames are lost, without CPU time; after a reset the host program is told",
        &[
            "a_card_whose_device_is_gone_leaves_the_rest_alone",
            "a_device_with_several_queues_that_is_deleted_costs_no_cpu_and_the_card_ends_in_time",
            "a_device_that_was_set_down_receives_again_when_it_is_up",
        ],
    ),
    (
        "a full disk behind a console's file",
        "output is lost and counted, and goes on when there is room",
        &[
            "a_full_disk_behind_the_console_s_file_costs_output_and_nothing_else",
            "a_log_whose_disk_was_full_goes_on_when_there_is_room",
        ],
    ),
    (
        "a console's pipe, FIFO, socket, terminal or file that nobody reads, or whose reader is gone",
        "output is lost and counted; neither the guest, nor others, nor the end are held up",
        &[
            "output_that_nobody_takes_holds_up_neither_others_nor_the_end",
            "output_whose_reader_is_gone_is_lost_and_counted",
            "a_flood_into_every_kind_of_descriptor_at_once_holds_up_nobody",
            "a_flood_into_a_limited_log_and_into_a_pipe_that_nobody_reads_stays_within_bounds",
        ],
    ),
    (
        "no descriptors left (EMFILE)",
        "building a VM is refused with the limit's name and leaves nothing behind; one that is built needs no more",
        &[
            "a_process_without_descriptors_for_a_vm_is_told_so_and_keeps_nothing_of_it",
            "a_process_with_few_descriptors_has_a_ring_and_one_with_none_left_is_told",
        ],
    ),
    (
        "no memory left (ENOMEM)",
        "building a VM is refused with its size; requests that the kernel has no memory for are asked for again",
        &[
            "a_process_without_address_space_for_a_guest_is_told_so_and_the_next_one_runs",
            "more_memory_than_the_host_has_is_refused",
            "a_ring_that_the_kernel_has_no_memory_for_is_asked_again_and_ends_without_what_it_never_took",
        ],
    ),
    ("the launcher is killed", "what was flushed is there", &["what_was_flushed_survives_the_launcher_being_killed"]),
];

pub fn text() -> String {
    let mut text = "\n## Faults of the host\n\nWhat the host does to a VM, and what comes of it. The tests are in `src/` and `tests/`.\n\n".to_owned();
    text.push_str("| The host has | What comes of it | Tests |\n|---|---|---|\n");
    for (fault, comes, tests) in FAULTS {
        let tests: Vec<_> = tests.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| {fault} | {comes} | {} |", tests.join(", "));
    }
    text
}

/// Names of tests are the only ones in these pages that are as long.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

/// Each test that the text names is there.
pub fn check(page: &str, text: &str, groups: &[(&str, &[Case])], tests: &BTreeMap<String, String>) {
    let is_case = |name: &str| groups.iter().any(|(_, cases)| cases.iter().any(|case| case.name == name));
    let mut count = 0;
    for name in names(text) {
        assert!(is_case(name) || tests.contains_key(name), "{page} names {name}, which is no test of ours");
        count += 1;
    }
    assert!(count > 10, "{page} names {count} tests");
}
