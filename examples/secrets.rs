//! Secrets of guests from the command line: keys of hosts, and stores of what is sealed to them. A value comes from a pipe or a file, and
//! never from the command line, which every user of the host can read.
//!
//! `cargo run --release --features secret --example secrets -- key new host.key`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to the person who runs it")]

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, Parser, Subcommand};
use vmcell::secret::{HostKey, SealingKey, Secret, SecretStore, Suite};
use vmcell::{Error, ErrorKind, Result};

/// Makes keys of hosts, and keeps secrets that are sealed to them
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Makes and shows keys of hosts
    #[command(subcommand)]
    Key(KeyTask),
    /// Makes an empty store for the secrets of one application
    Create {
        store: PathBuf,
        /// The application's name: letters, digits, '_', '-' and '.'
        #[arg(long)]
        application: String,
    },
    /// Seals what is piped in, or what a file holds, all of it: a line's end belongs to it
    Set {
        #[command(flatten)]
        to: To,
        /// Where the value is, if it is not piped in
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Seals what the program `age` decrypts
    Import {
        #[command(flatten)]
        to: To,
        /// The file that `age` has encrypted
        #[arg(long, value_name = "FILE")]
        age: PathBuf,
        /// The file with the identity that decrypts it
        #[arg(long)]
        identity: PathBuf,
    },
    /// Takes a secret out
    Unset { store: PathBuf, name: String },
    /// Shows which secrets there are: versions, bytes, keys and digests of what is sealed
    List {
        store: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Opens a secret, and writes it to a pipe or a file
    Get {
        store: PathBuf,
        name: String,
        /// The file with the host's key
        #[arg(long)]
        key: PathBuf,
        /// The version that it must have
        #[arg(long)]
        version: Option<u64>,
    },
    /// Opens all secrets by one host's key and seals them to another
    Reseal {
        store: PathBuf,
        /// The file with the key of the host that they are sealed to
        #[arg(long)]
        key: PathBuf,
        /// The file with the sealing key of the other host
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Subcommand)]
enum KeyTask {
    /// Makes a host's key in a new file, which only its owner may read, and shows its public half
    New {
        path: PathBuf,
        /// x25519, or x-wing if what is sealed must outlast quantum computers
        #[arg(long, default_value_t)]
        suite: Suite,
    },
    /// Shows the public half of a host's key, which whoever sets secrets needs
    Public { path: PathBuf },
}

#[derive(Args)]
struct To {
    store: PathBuf,
    name: String,
    /// The file with the sealing key of the host
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl To {
    fn set(&self, secret: &Secret) -> Result<()> {
        let version = open(&self.store)?.set(&SealingKey::file(&self.to)?, secret)?;
        println!("version {version}");
        Ok(())
    }
}

fn main() -> ExitCode {
    match run(Options::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("secrets: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Key(KeyTask::New { path, suite }) => {
            let key = HostKey::generate_for(suite)?;
            key.save(path)?;
            println!("{}", key.sealing_key());
        }
        Task::Key(KeyTask::Public { path }) => println!("{}", HostKey::file(path)?.sealing_key()),
        Task::Create { store, application } => drop(SecretStore::create(store, &application)?),
        Task::Set { to, file: Some(file) } => to.set(&Secret::file(&to.name, file)?)?,
        Task::Set { to, file: None } => to.set(&piped_in(&to.name)?)?,
        Task::Import { to, age, identity } => to.set(&decrypted(&to.name, &age, &identity)?)?,
        Task::Unset { store, name } => println!("revision {}", open(&store)?.unset(&name)?),
        Task::List { store, json: true } => println!("{}", SecretStore::inspect(store)?.to_json()),
        Task::List { store, json: false } => list(&store)?,
        Task::Get { store, name, key, version } => {
            let (store, key) = (open(&store)?, HostKey::file(key)?);
            let secret =
                version.map_or_else(|| store.get(&key, &name), |version| store.get_version(&key, &name, version));
            write_out(&secret?)?;
        }
        Task::Reseal { store, key, to } => {
            println!("version {}", open(&store)?.reseal(&HostKey::file(key)?, &SealingKey::file(to)?)?);
        }
    }
    Ok(())
}

/// A person who names a store means the application that it is of. A program that runs guests says whose it must be.
fn open(path: &Path) -> Result<SecretStore> {
    SecretStore::open(path, &SecretStore::inspect(path)?.application)
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Secret, message)
}

fn piped_in(name: &str) -> Result<Secret> {
    if io::stdin().is_terminal() {
        return Err(refused("the value would be seen on the terminal: pipe it in, or name a file by --file"));
    }
    Secret::read(name, unbuffered(io::stdin())?)
}

/// The standard library keeps what goes through standard input and output in buffers of its own.
fn unbuffered(stream: impl AsFd) -> Result<File> {
    let copy = stream.as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(|e| refused("standard input or output cannot be used").with_source(e))
}

/// The value goes from one process to the other through a pipe, and is nowhere else.
fn decrypted(name: &str, file: &Path, identity: &Path) -> Result<Secret> {
    let failed = |e: io::Error| refused("age cannot be run; is it installed (Debian: age)?").with_source(e);
    let mut age = Command::new("age");
    age.arg("--decrypt").arg("--identity").arg(identity).arg("--").arg(file);
    let mut age = age.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let read = age.stdout.take().map(|pipe| Secret::read(name, pipe));
    let read = read.unwrap_or_else(|| Err(refused("age has no output")));
    if age.wait().map_err(failed)?.success() {
        return read;
    }
    // What is wrong, it has said to the person who runs this.
    let failure = refused(format!("age has not decrypted {}", file.display()));
    Err(match read {
        Ok(_) => failure,
        Err(why) => failure.with_source(why),
    })
}

fn write_out(secret: &Secret) -> Result<()> {
    if io::stdout().is_terminal() {
        return Err(refused("the value would be seen on the terminal: send it to a pipe or a file"));
    }
    let written = unbuffered(io::stdout())?.write_all(secret.expose());
    written.map_err(|e| refused("the value cannot be written").with_source(e))
}

fn list(path: &Path) -> Result<()> {
    let info = SecretStore::inspect(path)?;
    println!("application {}, revision {}", info.application, info.revision);
    for it in info.secrets {
        let digest: String = it.digest.chars().take(16).collect();
        println!(
            "{}  version {}, {} bytes, to {} ({}), digest {digest}",
            it.name, it.version, it.value_len, it.sealed_to, it.suite
        );
    }
    Ok(())
}
