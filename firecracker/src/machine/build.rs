//! From the plan to a VM.

use vmcell::{
    Boot, Console, ConsoleConfig, Discovery, LogLevel, Metadata, Nic, RngConfig, VmBuilder, VmConfig, VsockConfig,
};

use super::balloon;
use super::disks::disk;
use super::limits::rate;
use super::memory;
use super::metadata::Store;
use super::nics::nic;
use super::plan::Plan;
use super::setup::Setup;
use crate::api::{BootSource, Drive, Entropy};
use crate::fault::Fault;
use crate::log::{Level, Log, open_to_append};

/// What a kernel is told if a client says nothing: what a micro-VM has not, and that a guest that panics ends.
const DEFAULT_CMDLINE: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0 swiotlb=noforce";

/// A builder of the machine, which begins with a kernel.
pub fn boot(plan: &Plan, store: &Store, setup: &Setup, log: &Log) -> Result<VmBuilder, Fault> {
    let Some(source) = &plan.boot else {
        return Err(Fault::new("Start microvm error: Cannot start microvm without kernel configuration."));
    };
    let mut config = describe(plan, setup)?;
    config.boot = Some(kernel(source, plan.drives.first()));
    let builder = with_serial(config.builder(), plan)?;
    with_nics(builder, plan, store).map(|builder| with_log(builder, log))
}

/// All but the kernel and the cards, which may have the metadata service.
pub fn describe(plan: &Plan, setup: &Setup) -> Result<VmConfig, Fault> {
    let mut config = VmConfig::default();
    config.name.clone_from(&setup.id);
    config.vcpus = plan.machine.vcpu_count.into();
    config.cpu = memory::cpu(&plan.machine)?;
    config.memory = memory::memory(&plan.machine);
    config.disks = plan.drives.iter().map(disk).collect::<Result<_, _>>()?;
    config.rng = plan.entropy.as_ref().map(entropy).transpose()?;
    config.balloon = plan.balloon.as_ref().map(balloon::balloon);
    config.vsock = plan.vsock.as_ref().map(|vsock| VsockConfig::new(vsock.guest_cid.into()).unix_path(&vsock.uds_path));
    if plan.serial.serial_out_path.is_none() {
        config.console = ConsoleConfig::Stdio;
    }
    config.console_rate = rate("serial", plan.serial.rate_limiter.as_ref())?;
    config.seccomp = setup.seccomp;
    Ok(config)
}

/// Has the guest's output go to a file or a named pipe, which may have no reader, if one is named.
pub fn with_serial(builder: VmBuilder, plan: &Plan) -> Result<VmBuilder, Fault> {
    let Some(path) = &plan.serial.serial_out_path else { return Ok(builder) };
    let opened = open_to_append(path);
    let file = opened.map_err(|why| Fault::new(format!("serial: serial_out_path is {path:?}: {why}")))?;
    Ok(builder.console(Console::descriptors(file.into(), None)))
}

/// Adds the cards.
pub fn with_nics(mut builder: VmBuilder, plan: &Plan, store: &Store) -> Result<VmBuilder, Fault> {
    let service: Option<Metadata> = plan.mmds.as_ref().map(|config| store.service(config)).transpose()?;
    let has_service = |id: &String| plan.mmds.as_ref().is_some_and(|config| config.network_interfaces.contains(id));
    for interface in &plan.nics {
        let what = format!("network interface {}", interface.iface_id);
        let card = Nic::from_config(&nic(interface)?).map_err(|error| Fault::of(&what, &error))?;
        let service = service.as_ref().filter(|_| has_service(&interface.iface_id));
        builder = builder.nic(match service {
            Some(service) => card.metadata(service),
            None => card,
        });
    }
    Ok(builder)
}

/// What happens to the machine goes to the program's log.
pub fn with_log(builder: VmBuilder, log: &Log) -> VmBuilder {
    let log = log.clone();
    builder.log(move |record| {
        let level = match record.level {
            LogLevel::Error => Level::Error,
            LogLevel::Warn => Level::Warn,
            _ => Level::Info,
        };
        log.say(level, &format!("vmcell::{}", record.target), &record.message);
    })
}

/// Random bytes. A limit of operations was refused.
pub fn entropy(entropy: &Entropy) -> Result<RngConfig, Fault> {
    let limiter = entropy.rate_limiter.unwrap_or_default();
    if limiter.ops.is_some_and(|ops| ops.limits()) {
        return Err(Fault::not_there("entropy: ops", "random bytes are limited by bandwidth alone"));
    }
    let rate = rate("entropy: bandwidth", limiter.bandwidth.as_ref())?;
    Ok(rate.map_or(RngConfig::new(), |rate| RngConfig::new().rate(rate)))
}

/// The kernel, which is told where its root file system is. One that is to know nothing of ACPI finds its devices on the command line.
pub fn kernel(source: &BootSource, first: Option<&Drive>) -> Boot {
    let given = source.boot_args.as_deref().unwrap_or(DEFAULT_CMDLINE);
    // What is behind `--` is for init.
    let (kernels, inits) = match given.split_once(" -- ") {
        Some((kernels, inits)) => (kernels, Some(inits)),
        None => (given, None),
    };
    let mut words = vec![kernels.trim().to_owned(), "pci=off".to_owned()];
    if let Some(root) = first.filter(|drive| drive.is_root_device) {
        words.push(match &root.partuuid {
            Some(partuuid) => format!("root=PARTUUID={partuuid}"),
            None => "root=/dev/vda".to_owned(),
        });
        words.push(if root.is_read_only() { "ro" } else { "rw" }.to_owned());
    }
    words.extend(inits.map(|inits| format!("-- {inits}")));
    words.retain(|word| !word.is_empty());
    let has_no_acpi = kernels.split_ascii_whitespace().any(|word| word == "acpi=off");
    let mut boot = Boot::linux(&source.kernel_image_path).cmdline(words.join(" "));
    boot.initrd = source.initrd_path.as_ref().map(Into::into);
    boot.discovery = if has_no_acpi { Discovery::Cmdline } else { Discovery::Acpi };
    boot
}

#[cfg(test)]
#[path = "build_test.rs"]
mod tests;
