//! The commands that ask `cell serve`.
//!
//! `ask` is the way there; `show` prints what came back; `exec` and `proxy` carry bytes.

mod ask;
mod exec;
mod proxy;
mod show;

use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::{Answer, Hidden, Request};
use crate::app;
use crate::fault::{Context, Fault, Result};
use crate::options::{Command, Hosts, Secrets, Volumes, Wireguard};
use ask::Connection;

/// The longest description that is read, in bytes.
const MOST_TEXT: u64 = 256 << 10;
/// The longest secret, in bytes, and one more, so that a longer one is refused.
const MOST_SECRET: u64 = 65_537;

/// Runs a command; returns the exit status.
///
/// # Errors
/// What was refused or failed.
pub fn run(command: Command, state: &Path, json: bool) -> Result<u8> {
    match command {
        Command::Exec { app, vm, host, command } => {
            return exec::exec(state, &Request::Exec { app, vm, host }, command);
        }
        Command::Proxy { app, ports } => return proxy::proxy(state, &app, &ports, json),
        Command::Destroy { app, yes } if app != yes => {
            return Err(Fault::new(format!("--yes says {yes}, and the app is {app}"))
                .next(format!("Say `cell destroy {app} --yes {app}`.")));
        }
        Command::Volumes(Volumes::Destroy { app, volume, yes }) if volume != yes => {
            return Err(Fault::new(format!("--yes says {yes}, and the volume is {volume}"))
                .next(format!("Say `cell volumes destroy {app} {volume} --yes {volume}`.")));
        }
        _ => {}
    }
    let mut connection = Connection::open(state, &request(&command)?)?;
    loop {
        match connection.next()? {
            Answer::Progress(what) if json || matches!(command, Command::Logs { .. }) => {
                tell(&mut std::io::stderr(), &what)
            }
            Answer::Progress(what) => tell(&mut std::io::stdout(), &what),
            Answer::Log { vm, host, line } => tell(&mut std::io::stdout(), &show::log(vm, host, &line, json)),
            Answer::Done(value) => {
                print(&command, &value, json);
                return Ok(0);
            }
            Answer::Refused(fault) => return Err(fault),
            Answer::Stream => return Err(Fault::new("cell serve answered by a stream, which was not asked for")),
        }
    }
}

fn tell(to: &mut impl Write, line: &str) {
    // Nobody may read it.
    let _ = writeln!(to, "{line}");
}

fn print(command: &Command, value: &Value, json: bool) {
    let text = match command {
        _ if json && value.is_null() => return,
        _ if json => value.to_string(),
        Command::Deploy { .. } => {
            format!("Release {} of {} is deployed", value["release"], value["app"].as_str().unwrap_or_default())
        }
        Command::Status { .. } => show::status(value),
        Command::Releases { .. } => show::releases(value),
        Command::Logs { .. } => return,
        Command::Secrets(Secrets::List { .. }) => show::secrets(value),
        Command::Volumes(Volumes::List { .. }) => show::volumes(value),
        Command::Wireguard(Wireguard::Create { .. }) => value["config"].as_str().unwrap_or_default().to_owned(),
        Command::Wireguard(Wireguard::List) => show::laptops(value),
        Command::Hosts(Hosts::Invite) => value["token"].as_str().unwrap_or_default().to_owned(),
        Command::Hosts(Hosts::List) => show::hosts(value),
        Command::Volumes(Volumes::Promote { .. }) => {
            format!("It is the volume now; snapshot {} has what came last", value["snapshot"])
        }
        Command::Volumes(Volumes::Snapshot { .. } | Volumes::Restore { .. }) => {
            format!("Done; snapshot {} has what the volume had", value["snapshot"])
        }
        _ => "Done".into(),
    };
    tell(&mut std::io::stdout(), text.trim_end());
}

fn request(command: &Command) -> Result<Request> {
    Ok(match command {
        Command::Deploy { file, wait, without } => deploy(file, *wait, without.clone())?,
        Command::Status { app } => Request::Status { app: app.clone() },
        Command::Logs { app, follow } => Request::Logs { app: app.clone(), follow: *follow },
        Command::Scale { app, count } => Request::Scale { app: app.clone(), count: *count },
        Command::Restart { app, without } => Request::Restart { app: app.clone(), without: without.clone() },
        Command::Cancel { app } => Request::Cancel { app: app.clone() },
        Command::Destroy { app, .. } => Request::Destroy { app: app.clone() },
        Command::Releases { app } => Request::Releases { app: app.clone() },
        Command::Secrets(secrets) => about_secrets(secrets)?,
        Command::Volumes(volumes) => about_volumes(volumes)?,
        Command::Wireguard(Wireguard::Create { name }) => Request::AddLaptop { name: name.clone() },
        Command::Wireguard(Wireguard::Remove { name }) => Request::RemoveLaptop { name: name.clone() },
        Command::Wireguard(Wireguard::List) => Request::Laptops,
        Command::Hosts(Hosts::Invite) => Request::Invite,
        Command::Hosts(Hosts::List) => Request::Hosts,
        Command::Hosts(Hosts::Remove { name }) => Request::RemoveHost { name: name.clone() },
        Command::Join { .. }
        | Command::Serve(_)
        | Command::Exec { .. }
        | Command::Proxy { .. }
        | Command::Completion { .. } => {
            return Err(Fault::new("this command asks nothing of cell serve"));
        }
    })
}

fn about_secrets(secrets: &Secrets) -> Result<Request> {
    Ok(match secrets.clone() {
        Secrets::Set { app, name, stage, without } => {
            let value = Hidden(secret(&app, &name)?);
            Request::SetSecret { app, name, value, stage, without }
        }
        Secrets::Unset { app, name } => Request::UnsetSecret { app, name },
        Secrets::List { app } => Request::Secrets { app },
    })
}

/// Reads the value of a secret.
fn secret(app: &str, name: &str) -> Result<String> {
    let from_file = |name: &str| format!("Give it on standard input: `cell secrets set {app} {name} < FILE`.");
    if let Some((name, _)) = name.split_once('=') {
        // What is on a command line is read by others, and in the shell's history: it is not shown once more.
        let why = format!("the secret {name:?} has its value on the command line, where others read it");
        return Err(Fault::new(why).next(from_file(name)));
    }
    if std::io::stdin().is_terminal() {
        tell(&mut std::io::stderr(), &format!("The value of {name}, and then Enter and Ctrl-D:"));
    }
    let mut value = String::new();
    let read = std::io::stdin().take(MOST_SECRET).read_to_string(&mut value);
    read.map_err(|error| match error.kind() {
        ErrorKind::InvalidData => {
            Fault::new(format!("the value of {name} is no text in UTF-8, which alone is allowed"))
                .next(format!("Encode it, and have the app decode it: `base64 FILE | cell secrets set {app} {name}`."))
        }
        _ => Fault::new(format!("standard input: {error}")).next(from_file(name)),
    })?;
    // An editor and `echo` end a text by a line's end, which is no part of a password.
    Ok(value.strip_suffix('\n').unwrap_or(&value).to_owned())
}

fn about_volumes(volumes: &Volumes) -> Result<Request> {
    Ok(match volumes.clone() {
        Volumes::List { app } => Request::Volumes { app },
        Volumes::Snapshot { app, volume } => Request::Snapshot { app, volume },
        Volumes::Promote { app, volume } => Request::Promote { app, volume },
        Volumes::Destroy { app, volume, .. } => Request::DestroyVolume { app, volume },
        Volumes::Remove { app, volume, snapshot } => Request::RemoveSnapshot { app, volume, snapshot },
        Volumes::Restore { app, volume, snapshot } => Request::Restore { app, volume, snapshot },
        Volumes::Fork { app, volume, snapshot, to_app, to_volume } => {
            Request::Fork { app, volume, snapshot, to_app, to_volume }
        }
        Volumes::Extend { app, volume, size } => {
            let bytes = app::parse_bytes(&size);
            let no_size = || Fault::new(format!("{size:?} is no size; allowed are such as 512M and 20G"));
            Request::Extend { app, volume, size: bytes.ok_or_else(no_size)? }
        }
    })
}

fn deploy(file: &Path, wait: bool, without: Vec<String>) -> Result<Request> {
    let named = file.display().to_string();
    let mut text = String::new();
    let next = "Describe the app in a file, as docs/platform.md shows, and name that file: `cell deploy app.toml`.";
    let opened = std::fs::File::open(file).context(&named).map_err(|fault| fault.next(next))?;
    let read = opened.take(MOST_TEXT.saturating_add(1)).read_to_string(&mut text).context(&named);
    read.map_err(|fault| fault.next(next))?;
    let folder: PathBuf = file.canonicalize().context(&named)?.parent().unwrap_or(Path::new("/")).to_owned();
    // What is wrong with the text is said even if nothing serves.
    app::parse(&text, &named, &folder)?;
    Ok(Request::Deploy { text, file: named, folder, wait, without })
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn a_value_on_the_command_line_is_refused_and_not_shown() {
        let fault = secret("web", "TOKEN=abc").unwrap_err();
        assert!(fault.message.contains("\"TOKEN\" has its value on the command line"), "{fault}");
        assert!(!fault.to_string().contains("abc"));
        assert!(fault.next.unwrap().contains("cell secrets set web TOKEN < FILE"));
    }
}
