//! A micro-VM launcher: one guest, its serial console on standard output, everything else on standard error.
//!
//! Exit status: 0 the guest shut down or reset itself; 1 it failed; 2 bad arguments. With --doctor: 0 VMs can start; 1 none can.
#![allow(clippy::print_stderr, reason = "a program talks to the person who runs it")]

mod confine;
mod describe;
mod metadata;
mod network;
mod options;
mod place;
mod snapshot;
mod terminal;
mod wire;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use vmcell::secret::Secret;
use vmcell::volume::{Key, Volume, VolumeOptions};
use vmcell::{Disk, Error, ErrorKind, Exit, FindingLevel, HostCheck, VmBuilder, confine_this_thread};

use crate::confine::{enter_jail, join_cgroup};
use crate::describe::{describe, is_on_stdio};
use crate::metadata::with_metadata;
use crate::network::Joined;
use crate::options::{Options, VolumeOption};
use crate::snapshot::Saver;
use crate::terminal::RawTerminal;
use crate::wire::Wire;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = if options.doctor { examine() } else { launch(&options) };
    match result {
        Ok(None | Some(Exit::Shutdown | Exit::Reset(_))) => ExitCode::SUCCESS,
        Ok(Some(exit)) => {
            eprintln!("launch: {exit}");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            eprintln!("launch: {}", error.chain());
            ExitCode::from(if error.kind() == ErrorKind::InvalidConfig { BAD_ARGUMENTS } else { FAILED })
        }
    }
}

/// Says what the host offers; a host on which no VM can start is an error.
fn examine() -> vmcell::Result<Option<Exit>> {
    let check = HostCheck::run();
    print(&check)?;
    if check.level() < FindingLevel::Problem {
        return Ok(None);
    }
    Err(Error::new(ErrorKind::Host, "no VM can start on this host"))
}

/// Does not panic where nobody reads.
fn print(what: impl std::fmt::Display) -> vmcell::Result<()> {
    writeln!(std::io::stdout(), "{what}")
        .map_err(|e| Error::new(ErrorKind::Host, "cannot write to standard output").with_source(e))
}

fn open(volume: &VolumeOption) -> vmcell::Result<Disk> {
    let options = VolumeOptions::new(volume.disk.clone()).discard(volume.discard);
    Ok(Volume::open_with(options, &Key::file(&volume.key_file)?)?.into_disk())
}

/// Gives the VM its secrets. Returns those that it can only be given once it is built, since its guest has booted already.
fn with_secrets(mut builder: VmBuilder, options: &Options) -> vmcell::Result<(VmBuilder, Vec<Secret>)> {
    if let Some(limit) = options.scrub_secrets {
        builder = builder.scrub_secrets_after(Duration::from_secs(limit));
    }
    let secrets = options.secrets.iter().map(|secret| Secret::file(&secret.name, &secret.file));
    let secrets = secrets.collect::<vmcell::Result<Vec<_>>>()?;
    if options.restore.is_some() {
        return Ok((builder, secrets));
    }
    Ok((secrets.into_iter().fold(builder, VmBuilder::secret), Vec::new()))
}

/// Gives the VM a place in a network.
fn with_network(builder: VmBuilder, options: &Options) -> vmcell::Result<(VmBuilder, Option<Joined>)> {
    let Some(network) = &options.network else { return Ok((builder, None)) };
    let (joined, nic) = Joined::new(network)?;
    Ok((builder.nic(nic), Some(joined)))
}

/// Carries packets from now on. The thread is made before this one may ask for less.
fn start_network(joined: Joined) -> vmcell::Result<Wire> {
    eprintln!("launch: {}\r", joined.told());
    joined.start()
}

fn end_network(wire: Option<Wire>, verbose: bool) {
    let counts = wire.map(Wire::stop);
    if let Some(counts) = counts.filter(|_| verbose) {
        eprintln!("launch: network: {counts}");
    }
}

fn launch(options: &Options) -> vmcell::Result<Option<Exit>> {
    let begin = Instant::now();
    let saved = options.restore.as_deref().map(snapshot::load).transpose()?;
    let mut config = describe(options, saved.as_ref())?;
    if options.print_config {
        config.validate()?;
        print(config.to_json()?)?;
        return Ok(None);
    }
    if let Some(cgroup) = &options.cgroup {
        join_cgroup(cgroup, &mut config)?;
    }
    let saver = options.snapshot_to.as_deref().map(Saver::new).transpose()?;
    let mut builder = match &options.metadata {
        Some(path) => with_metadata(&config, path, options.taps.len())?,
        None => config.builder(),
    };
    for volume in &options.volumes {
        builder = builder.disk(open(volume)?);
    }
    if let Some(saved) = &saved {
        builder = builder.fork_of(saved);
    }
    let (builder, joined) = with_network(builder, options)?;
    let (mut builder, renewed) = with_secrets(builder, options)?;
    if options.verbose {
        builder = builder.log(|record| eprintln!("launch: {record}\r"));
    }
    let opened = builder.open()?;
    // It takes programs, of which there are none in the jail.
    let terminal = RawTerminal::enter(is_on_stdio(&config.console));
    if !options.no_jail {
        let folders = saver.as_ref().map(Saver::folder).into_iter().chain(joined.as_ref().map(Joined::folder));
        enter_jail(&opened, &config, options, folders)?;
    }
    let wire = joined.map(start_network).transpose()?;
    let vm = Arc::new(opened.build()?);
    renewed.into_iter().try_for_each(|secret| vm.renew_secret(&secret))?;
    vm.start()?;
    let saving = saver.map(|saver| saver.start(Arc::clone(&vm)));
    confine_this_thread(config.seccomp)?;
    if options.verbose {
        eprintln!("launch: built and started in {} us\r", begin.elapsed().as_micros());
    }
    let exit = vm.wait()?;
    let _none_is_half_saved = saving.as_ref().map(|saving| saving.lock());
    drop(terminal);
    if options.verbose {
        eprintln!("launch: ended after {} ms: {exit}", begin.elapsed().as_millis());
    }
    end_network(wire, options.verbose);
    Ok(Some(exit))
}
