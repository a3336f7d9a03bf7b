//! A panic inside any function of the C interface comes back as an error.

use std::ffi::CStr;
use std::ptr::{null, null_mut};

use super::super::{
    balloon::*, config::*, config_cgroup::*, config_console::*, config_cpu::*, config_json::*, config_log::*,
    config_memory::*, config_rng::*, config_threads::*, config_vsock::*, console::*, console_status::*, counter::*,
    disk::*, disk_backend::*, disk_handle::*, disk_port::*, error::*, failure::*, host::*, host_key::*, io_thread::*,
    jail::*, library::*, limit_group::*, metadata::*, nic::*, nic_backend::*, nic_handle::*, nic_port::*, report::*,
    secret::*, secret_store::*, snapshot::*, vm::*, vm_exit::*, vm_metrics::*, vm_rates::*, vm_threads::*, volume::*,
    volume_handle::*, volume_merge::*, vsock::*,
};
use super::panic_in_next_call;

type Call = fn(*mut *mut ErrorObject) -> i32;

macro_rules! calls {
    ($($name:ident($($argument:expr),*)),* $(,)?) => {
        [$((stringify!($name), (|error| {
            let _ = error;
            // SAFETY: every pointer is NULL, but for `error`, which is a place for a pointer.
            unsafe { $name($($argument,)* error) }
        }) as Call)),*]
    };
}

fn reporting() -> impl IntoIterator<Item = (&'static str, Call)> {
    calls![
        vmcell_cgroup_join(null(), 0, 0, 0),
        vmcell_config_add_console(null_mut(), null_mut()),
        vmcell_config_add_disk(null_mut(), null_mut()),
        vmcell_config_add_nic(null_mut(), null_mut()),
        vmcell_config_new(null_mut()),
        vmcell_config_new_from_json(null(), 0, null_mut()),
        vmcell_config_open(null_mut()),
        vmcell_config_set_cgroup(null_mut(), null(), null(), 0, 0, 0, 0),
        vmcell_config_set_cmdline(null_mut(), null()),
        vmcell_config_set_console(null_mut(), null_mut()),
        vmcell_config_set_console_rate(null_mut(), 0, 0),
        vmcell_config_set_core_scheduling(null_mut(), 0),
        vmcell_config_set_seccomp(null_mut(), 1),
        vmcell_io_thread_confine(null_mut(), 1),
        vmcell_jail_close_inherited(null_mut(), null(), 0),
        vmcell_jail_enter(null_mut(), null_mut(), null_mut(), 0, null_mut()),
        vmcell_jail_keep(null_mut(), null(), 0),
        vmcell_jail_keep_folders(null_mut(), null()),
        vmcell_jail_leave_out(null_mut(), 0),
        vmcell_jail_limit(null_mut(), 0, 0),
        vmcell_jail_new(null_mut()),
        vmcell_jail_set_cgroup(null_mut(), null(), 0, 0, 0),
        vmcell_thread_confine(1),
        vmcell_config_set_cpu(null_mut(), 0, null()),
        vmcell_config_set_discovery(null_mut(), 0),
        vmcell_config_set_initrd(null_mut(), null()),
        vmcell_config_set_io_thread(null_mut(), null()),
        vmcell_config_set_io_affinity(null_mut(), null(), 0),
        vmcell_config_set_kick_signal(null_mut(), 0),
        vmcell_config_set_kernel(null_mut(), null()),
        vmcell_config_set_log(null_mut(), None, null_mut(), None),
        vmcell_config_set_memory(null_mut(), 0, 0, 0),
        vmcell_config_set_memory_locked(null_mut(), 0),
        vmcell_config_set_name(null_mut(), null()),
        vmcell_config_set_numa_node(null_mut(), 0),
        vmcell_config_set_memory_backing(null_mut(), 0),
        vmcell_config_set_memory_mib(null_mut(), 0),
        vmcell_config_set_memory_pages(null_mut(), 0),
        vmcell_config_set_polling(null_mut(), 0),
        vmcell_config_set_prealloc(null_mut(), 0),
        vmcell_config_set_protocol(null_mut(), 0),
        vmcell_config_set_rng(null_mut(), 0, 0),
        vmcell_config_set_balloon(null_mut(), 0, 1, 1, 0),
        vmcell_vm_balloon_set_statistics_interval(null_mut(), 0),
        vmcell_vm_balloon_set_target(null_mut(), 0),
        vmcell_vm_set_console_rate(null_mut(), 0, 0),
        vmcell_vm_set_rng_rate(null_mut(), 0, 0),
        vmcell_vm_balloon_state(null(), null_mut(), null_mut(), null_mut()),
        vmcell_vm_balloon_statistics(null(), 0, null_mut(), 0, null_mut()),
        vmcell_config_set_vsock(null_mut(), 3, null(), 0),
        vmcell_config_set_thread_start(null_mut(), None, null_mut(), None),
        vmcell_config_set_vcpu_affinity(null_mut(), 0, null(), 0),
        vmcell_config_set_vcpus(null_mut(), 0),
        vmcell_config_to_json(null(), null_mut(), 0, null_mut()),
        vmcell_config_new_fork(null(), 0, null_mut()),
        vmcell_config_set_fork_clock(null_mut(), 0),
        vmcell_config_set_never_snapshot(null_mut(), 1),
        vmcell_disk_new_volume(null(), null(), null(), 0, 0, null_mut()),
        vmcell_key_new(0, null(), 0, null_mut()),
        vmcell_key_new_from_file(0, null(), null_mut()),
        vmcell_volume_add_key(null(), null(), null(), null_mut()),
        vmcell_volume_back_up_header(null(), null()),
        vmcell_volume_change_key(null(), null(), null(), null_mut()),
        vmcell_volume_create(null(), 0, null(), null(), 0, null()),
        vmcell_volume_commit(null(), null(), 0, None, null_mut(), null_mut()),
        vmcell_volume_flatten(null(), null(), None, null_mut(), null_mut()),
        vmcell_volume_flatten_to(null(), null(), null(), null(), None, null_mut(), null_mut()),
        vmcell_volume_grow_fork(null(), null(), 0),
        vmcell_volume_fork(null(), null(), null(), null()),
        vmcell_volume_grow(null(), 0),
        vmcell_volume_handle_new(null(), null_mut()),
        vmcell_volume_handle_prepare_snapshot(null(), null(), null(), 0, null_mut()),
        vmcell_volume_handle_snapshot(null(), null(), null(), 0, null_mut()),
        vmcell_volume_info(null(), null_mut(), 0, null_mut()),
        vmcell_volume_release(null()),
        vmcell_volume_remove_key(null(), 0),
        vmcell_volume_restore_header(null(), null()),
        vmcell_volume_snapshot_take(null()),
        vmcell_volume_snapshot_wait(null(), 0, null_mut()),
        vmcell_host_key_new(0, null(), 0, null_mut()),
        vmcell_host_key_new_from_file(null(), null_mut()),
        vmcell_host_key_open(null(), null(), 0, null(), null(), 1, null_mut()),
        vmcell_host_key_save(null(), null()),
        vmcell_host_key_sealing_key(null(), null_mut(), 0, null_mut()),
        vmcell_secret_new(null(), null(), 0, null_mut()),
        vmcell_secret_new_from_file(null(), null(), null_mut()),
        vmcell_secret_seal(null(), null(), null(), 1, null_mut(), 0, null_mut()),
        vmcell_secret_store_create(null(), null()),
        vmcell_secret_store_get(null(), null(), null(), 0, null_mut()),
        vmcell_secret_name(null(), null_mut(), 0, null_mut()),
        vmcell_secret_store_get_all(null(), null(), null_mut(), 0, null_mut()),
        vmcell_secret_store_list(null(), null_mut(), 0, null_mut()),
        vmcell_secret_store_new(null(), null(), 0, null_mut()),
        vmcell_secret_store_put(null(), null(), 0),
        vmcell_secret_store_reseal(null(), null(), null(), null_mut()),
        vmcell_secret_store_set(null(), null(), null(), 0, null_mut()),
        vmcell_secret_store_unset(null(), null(), null_mut()),
        vmcell_secret_value(null(), null_mut(), 0, null_mut()),
        vmcell_snapshot_load(null(), 0, null_mut()),
        vmcell_snapshot_save(null(), null(), null(), null(), 0),
        vmcell_snapshot_standstill(null(), null_mut()),
        vmcell_vm_snapshot(null_mut(), None, null_mut(), null_mut()),
        vmcell_vm_suspend(null_mut(), null(), 0),
        vmcell_vm_memory_use(null(), null_mut(), null_mut()),
        vmcell_console_also(null_mut(), null_mut()),
        vmcell_console_new_callback(None, null_mut(), None, null_mut()),
        vmcell_console_new_fds(-1, -1, null_mut()),
        vmcell_console_new_file(null(), null_mut()),
        vmcell_console_new_none(null_mut()),
        vmcell_console_new_pair(null_mut(), null_mut(), null_mut()),
        vmcell_console_new_stdio(null_mut()),
        vmcell_console_set_append(null_mut(), 0),
        vmcell_console_set_rotation(null_mut(), 0, 0),
        vmcell_counter_add(null_mut(), 0),
        vmcell_counter_new(null_mut()),
        vmcell_disk_handle_engine(null(), null_mut()),
        vmcell_disk_handle_new(null(), null_mut()),
        vmcell_disk_handle_new_from_vm(null(), 0, null_mut()),
        vmcell_disk_handle_refresh(null_mut()),
        vmcell_disk_handle_replace(null_mut(), null_mut(), 0),
        vmcell_disk_new(null(), null_mut()),
        vmcell_disk_new_backend(null(), null(), null_mut(), null_mut()),
        vmcell_disk_new_from_fd(-1, null_mut()),
        vmcell_disk_port_add_counter(null_mut(), null(), null()),
        vmcell_disk_port_complete(null_mut(), 0, 0),
        vmcell_disk_port_give_up(null_mut(), null()),
        vmcell_disk_port_retry(null_mut()),
        vmcell_disk_port_set_capacity(null_mut(), 0),
        vmcell_disk_set_direct(null_mut(), 0),
        vmcell_disk_set_engine(null_mut(), 0),
        vmcell_disk_set_io_thread(null_mut(), null()),
        vmcell_disk_set_never_blocks(null_mut()),
        vmcell_disk_set_queues(null_mut(), 0),
        vmcell_disk_set_read_only(null_mut(), 0),
        vmcell_disk_set_serial(null_mut(), null()),
        vmcell_host_check(null_mut(), null_mut(), 0, null_mut()),
        vmcell_io_thread_new(null(), null_mut()),
        vmcell_io_thread_set_polling(null_mut(), 0),
        vmcell_disk_handle_set_limits(null_mut(), 0, 0, 0, 0),
        vmcell_disk_set_limit_group(null_mut(), null()),
        vmcell_disk_set_limits(null_mut(), 0, 0, 0, 0),
        vmcell_limit_group_new(0, 0, 0, 0, null_mut()),
        vmcell_limit_group_set_limits(null_mut(), 0, 0, 0, 0),
        vmcell_nic_handle_set_receive_limits(null_mut(), 0, 0, 0, 0),
        vmcell_nic_handle_set_send_limits(null_mut(), 0, 0, 0, 0),
        vmcell_nic_set_receive_group(null_mut(), null()),
        vmcell_nic_set_receive_limits(null_mut(), 0, 0, 0, 0),
        vmcell_nic_set_send_group(null_mut(), null()),
        vmcell_nic_set_send_limits(null_mut(), 0, 0, 0, 0),
        vmcell_metadata_get(null(), null_mut(), 0, null_mut()),
        vmcell_metadata_new(null_mut()),
        vmcell_metadata_patch(null_mut(), null(), 0),
        vmcell_metadata_set(null_mut(), null(), 0),
        vmcell_metadata_set_address(null_mut(), null()),
        vmcell_metadata_set_always_text(null_mut(), 0),
        vmcell_metadata_set_limit(null_mut(), 0),
        vmcell_metadata_set_needs_token(null_mut(), 0),
        vmcell_nic_handle_announce(null_mut()),
        vmcell_nic_handle_new(null(), null_mut()),
        vmcell_nic_handle_new_from_vm(null(), 0, null_mut()),
        vmcell_nic_handle_set_link(null_mut(), 0),
        vmcell_nic_new(null(), null_mut()),
        vmcell_nic_new_backend(null(), null(), null_mut(), null_mut()),
        vmcell_nic_new_from_fd(-1, null_mut()),
        vmcell_nic_new_from_fds(null(), 0, null_mut()),
        vmcell_nic_port_add_counter(null_mut(), null(), null()),
        vmcell_nic_port_deliver(null_mut(), null(), null(), 0),
        vmcell_nic_port_dropped(null_mut(), null_mut(), null_mut()),
        vmcell_nic_port_give_up(null_mut(), null()),
        vmcell_nic_port_retry(null_mut()),
        vmcell_nic_port_set_link(null_mut(), 0),
        vmcell_nic_set_io_thread(null_mut(), null()),
        vmcell_nic_set_mac(null_mut(), null()),
        vmcell_nic_set_metadata(null_mut(), null()),
        vmcell_nic_set_mtu(null_mut(), 0),
        vmcell_nic_set_never_blocks(null_mut()),
        vmcell_nic_set_queues(null_mut(), 0),
        vmcell_vm_console_dropped(null(), null_mut()),
        vmcell_vm_console_sink_error(null(), 0, null_mut()),
        vmcell_vm_console_sinks(null(), null_mut(), 0, null_mut()),
        vmcell_vm_ended_fd(null(), null_mut()),
        vmcell_vm_exit_error(null(), null_mut()),
        vmcell_vm_exit_is_crash(null(), null_mut()),
        vmcell_vm_exit_text(null(), null_mut(), 0, null_mut()),
        vmcell_vm_measure_turns(null_mut()),
        vmcell_vm_device_failures_json(null(), null_mut(), 0, null_mut()),
        vmcell_vm_metrics_json(null(), null_mut(), 0, null_mut()),
        vmcell_vm_metrics_openmetrics(null(), 0, null_mut(), 0, null_mut()),
        vmcell_vm_new(null_mut(), null_mut()),
        vmcell_vm_pause(null_mut()),
        vmcell_vm_pause_within(null_mut(), 0),
        vmcell_vm_request_shutdown(null_mut()),
        vmcell_vm_request_stop(null_mut()),
        vmcell_vm_reset_cause(null(), null_mut()),
        vmcell_vm_resume(null_mut()),
        vmcell_vm_start(null_mut()),
        vmcell_vm_status(null(), null_mut()),
        vmcell_vm_stop(null_mut()),
        vmcell_vm_threads(null(), null_mut(), 0, null_mut()),
        vmcell_vm_wait(null(), 0, null_mut()),
        vmcell_vms_discards_done_fd(null_mut()),
        vmcell_vm_vsock_connect(null(), 1, 0, null_mut()),
        vmcell_vsock_listener_accept(null_mut(), 0, null_mut(), null_mut()),
        vmcell_vsock_listener_fd(null(), null_mut()),
        vmcell_vsock_listener_new(null(), 1, null_mut()),
        vmcell_vm_write_console(null_mut(), null(), 0, null_mut()),
    ]
}

/// Functions without a place for an error, and whether each returned its value for a panic.
fn silent() -> Vec<(&'static str, bool)> {
    fn after_panic<T>(call: impl FnOnce() -> T) -> T {
        panic_in_next_call();
        call()
    }
    // SAFETY: NULL is allowed.
    let has_feature = after_panic(|| unsafe { vmcell_has_feature(null()) });
    vec![
        ("vmcell_config_free", after_panic(|| vmcell_config_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_console_free", after_panic(|| vmcell_console_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_console_threads_abandoned", after_panic(|| vmcell_console_threads_abandoned()) == 0),
        ("vmcell_counter_free", after_panic(|| vmcell_counter_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_disk_free", after_panic(|| vmcell_disk_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_disk_handle_free", after_panic(|| vmcell_disk_handle_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_disk_threads_abandoned", after_panic(|| vmcell_disk_threads_abandoned()) == 0),
        ("vmcell_disk_transfers_abandoned", after_panic(|| vmcell_disk_transfers_abandoned()) == 0),
        ("vmcell_error_cause", after_panic(|| vmcell_error_cause(null(), 0)).is_null()),
        ("vmcell_error_cause_count", after_panic(|| vmcell_error_cause_count(null())) == 0),
        ("vmcell_error_chain", !after_panic(|| vmcell_error_chain(null())).is_null()),
        ("vmcell_error_free", after_panic(|| vmcell_error_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_error_message", !after_panic(|| vmcell_error_message(null())).is_null()),
        ("vmcell_error_number", after_panic(|| vmcell_error_number(null())) == VMCELL_ERROR_PANIC),
        ("vmcell_handle_count", after_panic(|| vmcell_handle_count()) == 0),
        ("vmcell_has_feature", has_feature == 0),
        ("vmcell_io_thread_free", after_panic(|| vmcell_io_thread_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_jail_free", after_panic(|| vmcell_jail_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_limit_group_free", after_panic(|| vmcell_limit_group_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_volume_handle_free", after_panic(|| vmcell_volume_handle_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_volume_snapshot_free", after_panic(|| vmcell_volume_snapshot_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_key_free", after_panic(|| vmcell_key_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_host_key_free", after_panic(|| vmcell_host_key_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_secret_free", after_panic(|| vmcell_secret_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_secret_store_free", after_panic(|| vmcell_secret_store_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_snapshot_free", after_panic(|| vmcell_snapshot_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_metadata_free", after_panic(|| vmcell_metadata_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_nic_free", after_panic(|| vmcell_nic_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_nic_handle_free", after_panic(|| vmcell_nic_handle_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_vm_discard", after_panic(|| vmcell_vm_discard(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_vm_free", after_panic(|| vmcell_vm_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_vsock_listener_free", after_panic(|| vmcell_vsock_listener_free(null_mut())) == VMCELL_ERROR_PANIC),
        ("vmcell_vms_discarded", after_panic(|| vmcell_vms_discarded()) == 0),
    ]
}

#[test]
fn a_panic_inside_any_function_comes_back_as_an_error() {
    // It returns the address of a constant, and does nothing else.
    let mut seen = vec!["vmcell_version"];
    for (name, call) in reporting() {
        let mut error = null_mut();
        panic_in_next_call();
        assert_eq!(call(&raw mut error), VMCELL_ERROR_PANIC, "{name}");
        // SAFETY: the text is borrowed from an error that lives.
        let message = unsafe { CStr::from_ptr(vmcell_error_message(error)) }.to_str().unwrap();
        assert_eq!(message, "this is a bug in vmcell: it panicked: forced by a test", "{name}");
        assert_eq!(vmcell_error_free(error), VMCELL_OK);
        panic_in_next_call();
        assert_eq!(call(null_mut()), VMCELL_ERROR_PANIC, "{name}");
        seen.push(name);
    }
    for (name, as_expected) in silent() {
        assert!(as_expected, "{name}");
        seen.push(name);
    }
    seen.sort_unstable();
    assert_eq!(seen, include_str!("../../tests/ffi/symbols.txt").lines().collect::<Vec<_>>());
}
