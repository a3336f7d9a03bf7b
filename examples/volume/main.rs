//! Encrypted volumes from the command line.
//!
//! `cargo run --release --features volume --example volume -- create data.vol --size 64M --key-file key`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to the person who runs it")]

mod size;

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use size::Size;
use vmcell::volume::{Key, OtherForks, Volume, VolumeFormat, VolumeInfo, VolumeProgress};

/// Creates encrypted volumes (LUKS2), shows them, and changes their keys
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Creates a volume in a new file, opened by a key file
    Create(Create),
    /// Makes a block device a volume, opened by a key file: what was on the device is lost
    Format(Format),
    /// Shows what a volume's header tells without a key
    Info { path: PathBuf },
    /// Makes a volume that begins as another one, and takes space for what is changed alone; the other one may only be read from then on
    Fork {
        base: PathBuf,
        path: PathBuf,
        /// The key file that opens the base
        #[arg(long, value_name = "FILE")]
        with: PathBuf,
        #[command(flatten)]
        key: KeyFile,
    },
    /// Keeps what a volume holds now: it may only be read from then on, and NEW, opened by the same key, goes on from it
    Snapshot {
        path: PathBuf,
        new: PathBuf,
        #[command(flatten)]
        key: KeyFile,
    },
    /// Lets a volume be written to again that others were made over, once those are gone
    Release { path: PathBuf },
    /// Makes a volume larger, also while a VM uses it, whose program then tells the guest; a fork only while none does
    Grow {
        path: PathBuf,
        /// The new size of its data: bytes, or a number with K, M, G or T
        #[arg(long)]
        size: Size,
        /// The key file that opens it, which a fork needs
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
    },
    /// Makes a fork independent of what it builds on
    Flatten {
        path: PathBuf,
        /// The key file that opens it
        #[arg(long, value_name = "FILE")]
        with: PathBuf,
        /// Leaves it as it is, and copies all of it to a new file, opened by the same key, which cryptsetup opens as well
        #[arg(long, value_name = "NEW")]
        to: Option<PathBuf>,
    },
    /// Writes a fork's changes into its base, which then may be written to, and removes the fork
    Commit {
        path: PathBuf,
        /// The key file that opens it
        #[arg(long, value_name = "FILE")]
        with: PathBuf,
        /// Vouches that the base has no other forks any more: those that it has are refused from then on
        #[arg(long)]
        give_up_others: bool,
    },
    /// Adds and removes what opens a volume
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Args)]
struct Create {
    path: PathBuf,
    /// The size of its data: bytes, or a number with K, M, G or T
    #[arg(long)]
    size: Size,
    #[command(flatten)]
    key: KeyFile,
    /// A name for people, which is not encrypted
    #[arg(long, default_value = "")]
    label: String,
    /// The smallest part that is read and written, in bytes: 512 to 4096
    #[arg(long, default_value_t = 4096)]
    sector_size: usize,
}

#[derive(Args)]
struct Format {
    device: PathBuf,
    #[command(flatten)]
    key: KeyFile,
    /// A name for people, which is not encrypted
    #[arg(long, default_value = "")]
    label: String,
    /// The smallest part that is read and written, in bytes: 512 to 4096
    #[arg(long, default_value_t = 4096)]
    sector_size: usize,
}

#[derive(Args)]
struct KeyFile {
    /// The file whose content opens the volume, all of it
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// The content is random, at least 32 bytes: opening takes milliseconds instead of a tenth of a second
    #[arg(long)]
    random_key: bool,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Adds a key
    Add {
        path: PathBuf,
        /// A key file that opens the volume already
        #[arg(long, value_name = "FILE")]
        with: PathBuf,
        #[command(flatten)]
        new: KeyFile,
    },
    /// Removes a key, so that it opens the volume no longer
    Remove {
        path: PathBuf,
        /// The number of its key slot, as `info` shows it
        #[arg(long)]
        slot: u32,
    },
}

impl KeyFile {
    fn read(&self) -> vmcell::Result<Key> {
        if self.random_key { Key::random_file(&self.key_file) } else { Key::file(&self.key_file) }
    }
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volume: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> vmcell::Result<()> {
    match command {
        Command::Create(create) => {
            let format = VolumeFormat::new().label(create.label).sector_size(create.sector_size);
            Volume::create_with(create.path, create.size.0, &create.key.read()?, &format)
        }
        Command::Format(Format { device, key, label, sector_size }) => {
            let format = VolumeFormat::new().label(label).sector_size(sector_size);
            Volume::format_device(device, &key.read()?, &format)
        }
        Command::Info { path } => Volume::inspect(path).map(|info| show(&info)),
        Command::Fork { base, path, with, key } => Volume::fork(base, &Key::file(with)?, path, &key.read()?),
        Command::Snapshot { path, new, key } => {
            let key = key.read()?;
            Volume::fork(path, &key, new, &key)
        }
        Command::Release { path } => Volume::release(path),
        Command::Grow { path, size, with: None } => Volume::grow(path, size.0),
        Command::Grow { path, size, with: Some(with) } => Volume::grow_fork(path, &Key::file(with)?, size.0),
        Command::Flatten { path, with, to: None } => Volume::flatten(path, &Key::file(with)?, progress()).map(drop),
        Command::Flatten { path, with, to: Some(to) } => {
            // It stays what it was: a machine's key file opens its new key slot in a tenth of a second.
            let key = Key::file(with)?;
            Volume::flatten_to(path, &key, to, &key, progress()).map(drop)
        }
        Command::Commit { path, with, give_up_others } => {
            let others = if give_up_others { OtherForks::GiveUp } else { OtherForks::Refuse };
            Volume::commit(path, &Key::file(with)?, others, progress()).map(drop)
        }
        Command::Key(KeyCommand::Add { path, with, new }) => {
            let slot = Volume::keys(path)?.add(&Key::file(with)?, &new.read()?)?;
            println!("key slot {slot}");
            Ok(())
        }
        Command::Key(KeyCommand::Remove { path, slot }) => Volume::keys(path)?.remove(slot),
    }
}

/// Says on standard error how far long work is, if somebody looks at it.
fn progress() -> impl FnMut(VolumeProgress) -> ControlFlow<()> {
    let (is_terminal, mut said) = (std::io::stderr().is_terminal(), None);
    move |now| {
        let percent = now.done.saturating_mul(100).checked_div(now.total).unwrap_or(100);
        if is_terminal && said.replace(percent) != Some(percent) {
            eprint!("\r{percent:>3} %{}", if now.done == now.total { "\n" } else { "" });
        }
        ControlFlow::Continue(())
    }
}

fn show(info: &VolumeInfo) {
    println!("uuid    {}", info.uuid);
    if !info.label.is_empty() {
        println!("label   {}", info.label);
    }
    println!("cipher  {}", info.cipher);
    println!("sectors {} bytes", info.sector_size);
    let capacity =
        info.capacity.map_or_else(|| "of a size that only its key shows".to_owned(), |bytes| format!("{bytes} bytes"));
    println!("data    from byte {}, {capacity}", info.data_offset);
    if info.is_fork {
        println!("fork    of another volume");
    }
    if info.is_base {
        println!("base    of others, so it may only be read");
    }
    for slot in &info.slots {
        println!("key {:<3} {}", slot.number, slot.opened_by);
    }
    if let Some(problem) = &info.header_problem {
        println!("warning {problem}");
    }
}
