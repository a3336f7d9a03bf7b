//! Runs one target without a fuzzer: `cargo run --example sweep -- TARGET SECONDS`, from `VMCELL_FUZZ_SEED` on; or one
//! input: `cargo run --example sweep -- TARGET FILE`.

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
    match args.next().map(|value| value.parse().map_err(|_| value)) {
        Some(Ok(seconds)) => options.time = Duration::from_secs(seconds),
        Some(Err(path)) => {
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            (target.run)(&bytes);
            println!("{name}: {path} does not fail");
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let count = sweep(target, &options);
    println!("{name}: {count} inputs in {} s, none fails", options.time.as_secs());
    ExitCode::SUCCESS
}
