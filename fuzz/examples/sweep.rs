//! Runs one target without a fuzzer: `cargo run --example sweep -- TARGET SECONDS`, from `VMCELL_FUZZ_SEED` on.

use std::process::ExitCode;
use std::time::Duration;

use vmcell_fuzz::TARGETS;
use vmcell_fuzz::sweep::{Options, sweep};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there is no target `{name}`; allowed: {}", known.join(", "));
        return ExitCode::from(2);
    };
    let mut options = Options::from_environment(60);
    if let Some(seconds) = args.next().and_then(|value| value.parse().ok()) {
        options.time = Duration::from_secs(seconds);
    }
    let count = sweep(target, &options);
    println!("{name}: {count} inputs in {} s, none fails", options.time.as_secs());
    ExitCode::SUCCESS
}
