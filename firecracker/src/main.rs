//! One micro-VM, driven by Firecracker's command line and API. See `docs/orchestrators.md`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use vmcell_firecracker::api::VERSION;
use vmcell_firecracker::machine::{SNAPSHOT_FORMAT, snapshot_version_of};
use vmcell_firecracker::options::Options;
use vmcell_firecracker::program::{BAD_ARGUMENTS, run};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(refused) => {
            // Nobody may read it.
            let _ = refused.print();
            let is_help = matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(BAD_ARGUMENTS) };
        }
    };
    if options.version {
        // Clients look for the second word.
        let _ = writeln!(std::io::stdout(), "Firecracker v{VERSION}\n");
        return ExitCode::SUCCESS;
    }
    if options.snapshot_version {
        let _ = writeln!(std::io::stdout(), "v{SNAPSHOT_FORMAT}.0.0");
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &options.describe_snapshot {
        return describe(path);
    }
    match run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "vmcell-firecracker: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn describe(path: &Path) -> ExitCode {
    match snapshot_version_of(path) {
        Ok(version) => {
            let _ = writeln!(std::io::stdout(), "v{version}.0.0");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let _ = writeln!(std::io::stderr(), "vmcell-firecracker: {}", fault.message());
            ExitCode::FAILURE
        }
    }
}
