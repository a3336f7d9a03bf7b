//! Each target for some seconds, and the seeds as they are committed.

use std::fs;

use vmcell_fuzz::sweep::{Options, folder, sweep};
use vmcell_fuzz::{TARGETS, Target};

/// How long each target is run, if the environment says nothing.
const SECONDS: u64 = 5;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("there is a target of this name")
}

fn run(name: &str) {
    let options = Options::from_environment(SECONDS);
    let count = sweep(target(name), &options);
    println!("{name}: {count} inputs in {} s, from VMCELL_FUZZ_SEED={} on", options.time.as_secs(), options.seed);
}

#[test]
fn the_queue_does_as_its_model() {
    run("queue");
}

#[test]
fn a_disk_answers_as_its_model() {
    run("block");
}

#[test]
fn frames_pass_as_their_model() {
    run("net");
}

#[test]
fn registers_read_as_their_model() {
    run("registers");
}

#[test]
fn a_source_of_random_bytes_gives_as_its_model() {
    run("random");
}

#[test]
fn a_balloon_takes_the_pages_of_its_model() {
    run("balloon");
}

#[test]
fn a_vsock_carries_what_is_sent() {
    run("vsock");
}

#[test]
fn a_saved_snapshot_is_refused_or_is_one() {
    run("saved");
}

#[test]
fn a_header_of_a_volume_is_refused_or_is_one() {
    run("volume");
}

#[test]
fn a_map_of_a_fork_is_refused_or_keeps_what_is_written() {
    run("volume_fork");
}

#[test]
fn nothing_opens_but_what_was_sealed() {
    run("sealed");
}

#[test]
fn a_store_of_secrets_is_refused_or_is_one() {
    run("secret_store");
}

#[test]
fn a_metadata_service_stands_any_frame_and_forgets_who_is_silent() {
    run("metadata");
}

#[test]
fn frames_over_a_stream_arrive_whole_and_in_order_or_the_link_ends() {
    run("frame_stream");
}

#[test]
fn packets_pass_a_private_network_if_its_model_lets_them() {
    run("network");
}

#[test]
fn a_tunnel_gives_what_was_sealed_once_and_nothing_else() {
    run("wireguard");
}

#[test]
fn a_file_for_wg_quick_is_refused_by_its_line_or_is_one() {
    run("wg_quick");
}

#[test]
fn an_elf_kernel_is_loaded_as_its_model() {
    run("elf");
}

#[test]
fn a_pvh_entry_point_is_found_as_its_model() {
    run("pvh");
}

#[test]
fn a_bzimage_is_loaded_as_its_model() {
    run("bzimage");
}

#[test]
fn an_initrd_goes_where_its_model_has_it() {
    run("initrd");
}

#[test]
fn a_command_line_is_read_as_it_was_written() {
    run("cmdline");
}

#[test]
fn ports_answer_as_their_model() {
    run("ports");
}

#[test]
fn a_serial_port_loses_nothing_that_its_model_has() {
    run("serial");
}

#[test]
fn an_access_of_a_window_reaches_one_device_or_nobody() {
    run("windows");
}

#[test]
fn a_description_is_read_as_it_was_written() {
    run("description");
}

#[test]
fn the_launcher_takes_what_its_grammar_has() {
    run("launcher");
}

#[test]
fn requests_of_clients_do_as_their_model_or_nothing() {
    run("api");
}

#[test]
fn calls_from_c_return_as_their_model() {
    run("ffi");
}

#[test]
fn a_source_of_an_image_is_refused_or_becomes_one_that_has_what_it_has() {
    run("image");
}

#[test]
fn an_app_toml_is_refused_by_its_line_or_is_an_app() {
    run("app_toml");
}

#[test]
fn what_a_guest_says_is_refused_or_is_a_message() {
    run("guest_messages");
}

/// `VMCELL_UPDATE=1 cargo test seeds` writes them.
#[test]
fn the_committed_seeds_are_those_that_the_targets_make() {
    for target in TARGETS {
        for (name, bytes) in (target.seeds)() {
            let path = folder("seeds", target).join(name);
            if std::env::var_os("VMCELL_UPDATE").is_some() {
                fs::create_dir_all(folder("seeds", target)).unwrap();
                fs::write(&path, &bytes).unwrap();
            }
            let hint = "run VMCELL_UPDATE=1 cargo test seeds";
            assert_eq!(fs::read(&path).ok(), Some(bytes), "{}: {hint}", path.display());
        }
    }
}
