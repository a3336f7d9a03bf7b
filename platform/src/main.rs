//! `cell`: apps in VMs on a host of your own. See `docs/platform.md`.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use vmcell_platform::options::Options;

/// The exit status for arguments that are refused.
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    match Options::try_parse() {
        Ok(_) => ExitCode::SUCCESS,
        Err(refused) => {
            // Nobody may read it.
            let _ = refused.print();
            let is_help = matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if is_help { ExitCode::SUCCESS } else { ExitCode::from(BAD_ARGUMENTS) }
        }
    }
}
