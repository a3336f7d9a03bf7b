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
