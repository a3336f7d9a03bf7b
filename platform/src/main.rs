//! `cell`: apps in VMs on a host of your own. See `docs/platform.md`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use vmcell_platform::fault::{Fault, Result};
use vmcell_platform::options::{self, Command, Options};
use vmcell_platform::{client, start};

/// The exit status for arguments that are refused.
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let given = match Options::try_parse() {
        Ok(given) => given,
        Err(refused) => {
            // Nobody may read it.
            let _ = refused.print();
            if matches!(refused.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                return ExitCode::SUCCESS;
            }
            if options::ask_for_json(std::env::args_os()) {
                say_as_json(&options::refused(&refused));
            }
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    let json = given.json;
    match run(given) {
        Ok(status) => ExitCode::from(status),
        Err(fault) => {
            let _ = writeln!(std::io::stderr(), "cell: {fault}");
            if json {
                say_as_json(&fault);
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<u8> {
    match options.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Options::command(), "cell", &mut std::io::stdout());
            Ok(0)
        }
        Command::Join { token, mesh, name } => {
            let joined = start::join(&state(options.state)?, &token, mesh, name)?;
            let line = serde_json::json!({ "host": joined.number, "hosts": joined.hosts }).to_string();
            let told =
                format!("This is host {} now, with {}; `cell serve` runs it.", joined.number, joined.hosts.join(", "));
            say(if options.json { &line } else { &told });
            Ok(0)
        }
        Command::Serve(how) => start::serve(&state(options.state)?, &how, say).map(|()| 0),
        command => client::run(command, &state(options.state)?, options.json),
    }
}

fn say_as_json(fault: &Fault) {
    if let Ok(text) = serde_json::to_string(fault) {
        say(&text);
    }
}

/// Nobody may read it.
fn say(what: &str) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// The folder with the state.
fn state(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = given.or_else(|| std::env::var_os("CELL_STATE").map(PathBuf::from)) {
        return Ok(path);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/cell".into());
    }
    let own = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let own = own.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    own.map(|own| own.join("cell"))
        .ok_or_else(|| Fault::new("there is no home folder for the state").next("Name a folder: `cell --state DIR`."))
}
