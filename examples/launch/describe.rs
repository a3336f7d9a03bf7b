//! From a command line, and the file that it may name, to the description of a VM.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use vmcell::{Boot, ConsoleConfig, Error, ErrorKind, MemoryBacking, Seccomp, Snapshot, VmConfig};

use crate::options::Options;

/// No description of a VM comes near this, and a device or a pipe may never end.
const MOST_BYTES: u64 = 1 << 20;

/// The description in the file or of the saved VM, if one is given, with what the command line says in its place or added to it.
pub fn describe(options: &Options, saved: Option<&Snapshot>) -> vmcell::Result<VmConfig> {
    let mut config = match (&options.config, saved) {
        (Some(path), _) => read(path)?,
        (None, Some(saved)) => described_by(saved, options),
        (None, None) => {
            let mut plain = VmConfig::default();
            plain.console = ConsoleConfig::Stdio;
            plain.seccomp = Seccomp::Refuse;
            plain
        }
    };
    if options.snapshot_to.is_some() {
        // Otherwise each snapshot copies the RAM while the guest stands still.
        config.memory.backing = MemoryBacking::Memfd;
    }
    describe_boot(options, &mut config);
    set(&mut config.vcpus, options.vcpus);
    set(&mut config.cpu, options.cpu.clone());
    set(&mut config.memory.mib, options.memory);
    set(&mut config.memory.pages, options.pages.map(Into::into));
    set(&mut config.memory.numa_node, options.numa_node.map(Some));
    config.memory.locked |= options.lock_memory;
    config.core_scheduling |= options.core_scheduling;
    set(&mut config.console, options.console.clone());
    if !options.logs.is_empty() {
        let first = std::mem::take(&mut config.console);
        let logs = options.logs.iter().cloned().map(ConsoleConfig::File);
        config.console = ConsoleConfig::All(std::iter::once(first).chain(logs).collect());
    }
    set(&mut config.rng, options.rng.clone().map(Some));
    set(&mut config.balloon, options.balloon.clone().map(Some));
    set(&mut config.console_rate, options.console_rate.map(Some));
    set(&mut config.vsock, options.vsock.clone().map(Some));
    set(&mut config.poll_us, options.poll_us.map(Some));
    set(&mut config.cgroup, options.cgroup.clone().map(|cgroup| Some(cgroup.of_vm)));
    set(&mut config.seccomp, options.seccomp.map(Into::into));
    config.disks.extend(options.disks.iter().cloned());
    config.nics.extend(options.taps.iter().cloned());
    Ok(config)
}

/// A fork has as many devices of a kind as its source had, so those of the command line take the place of the saved ones.
fn described_by(saved: &Snapshot, options: &Options) -> VmConfig {
    let mut config = saved.config().clone();
    // It is a place on the host where it was saved.
    config.cgroup = None;
    if !options.disks.is_empty() {
        config.disks.clear();
    }
    if !options.taps.is_empty() {
        config.nics.clear();
    }
    // Whoever saved it may have had reasons that are none here.
    if config.seccomp == Seccomp::Off {
        config.seccomp = Seccomp::Refuse;
    }
    config
}

/// Whether the guest's console is the launcher's own terminal.
pub fn is_on_stdio(console: &ConsoleConfig) -> bool {
    match console {
        ConsoleConfig::Stdio => true,
        ConsoleConfig::All(consoles) => consoles.iter().any(is_on_stdio),
        _ => false,
    }
}

fn read(path: &Path) -> vmcell::Result<VmConfig> {
    let json = read_text(path, "description")?;
    VmConfig::from_json(&json).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// Reads a file that is called `what` in messages.
pub fn read_text(path: &Path, what: &str) -> vmcell::Result<String> {
    let unreadable = |e: io::Error| {
        let message = format!("cannot read the {what} {}", path.display());
        Error::new(ErrorKind::InvalidConfig, message).with_source(e)
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        let message = format!("{} is longer than {MOST_BYTES} bytes, the most for a {what}", path.display());
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    String::from_utf8(bytes).map_err(|e| {
        let from = e.utf8_error().valid_up_to();
        let message = format!("the {what} {} is not UTF-8 from byte {from} on", path.display());
        Error::new(ErrorKind::InvalidConfig, message)
    })
}

/// The file may say all of it, or leave the kernel to the command line.
fn describe_boot(options: &Options, config: &mut VmConfig) {
    let mut boot = config.boot.take().or_else(|| options.kernel.as_ref().map(Boot::linux));
    if let Some(boot) = &mut boot {
        set(&mut boot.kernel, options.kernel.clone());
        set(&mut boot.initrd, options.initrd.clone().map(Some));
        set(&mut boot.cmdline, options.cmdline.clone());
        set(&mut boot.discovery, options.discovery.map(Into::into));
        set(&mut boot.protocol, options.protocol.map(Into::into));
    }
    config.boot = boot;
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *setting = value;
    }
}
