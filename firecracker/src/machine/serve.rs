//! What each call does to the machine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use vmcell::{Boot, VmConfig, VsockConfig};

use super::state::Machine;
use super::{balloon, build, disks, memory, metadata, nics};
use crate::api::{
    Action, BootSource, Call, InstanceInfo, LoggerUpdate, MachineConfigUpdate, MmdsConfig, RateLimiter, VERSION, Vsock,
    When,
};
use crate::fault::Fault;
use crate::http::{Response, Status as HttpStatus};
use crate::log::Settings;

impl Machine {
    /// Does what a call asks for. Blocks as long as that takes, and never for the guest to do something.
    ///
    /// # Errors
    /// The [`Fault`] to be told. The machine is as it was then.
    pub fn serve(&mut self, call: Call) -> Result<Response, Fault> {
        self.check_when(&call)?;
        match call {
            Call::GetInstance => json(&InstanceInfo::new(&self.setup.id, self.state())),
            Call::GetVersion => json(&json!({ "firecracker_version": VERSION })),
            Call::GetVmConfig => json(&self.plan.described()),
            Call::GetMachineConfig => json(&self.plan.machine),
            Call::GetBalloon => match &self.plan.balloon {
                Some(balloon) => json(balloon),
                None => Err(no_balloon()),
            },
            Call::GetBalloonStatistics => self.balloon_statistics(),
            Call::GetMmds => self.metadata(),
            other => self.change(other).map(|()| Response::done()),
        }
    }

    fn change(&mut self, call: Call) -> Result<(), Fault> {
        match call {
            Call::SetMachineConfig(update) => self.set_machine_config(&update),
            Call::PutBootSource(source) => self.put_boot_source(source),
            Call::PutDrive(drive) => {
                self.warn_of_burst(&[drive.rate_limiter]);
                let drive = disks::checked(drive)?;
                self.plan().put_drive(drive)
            }
            Call::PutNetworkInterface(nic) => {
                self.warn_of_burst(&[nic.rx_rate_limiter, nic.tx_rate_limiter]);
                let nic = nics::checked(nic)?;
                self.plan().put_nic(nic)
            }
            Call::PutVsock(vsock) => self.put_vsock(vsock),
            Call::PutBalloon(wanted) => {
                balloon::check(&wanted, self.plan.machine.mem_size_mib)?;
                self.plan().put_balloon(wanted)
            }
            Call::PutEntropy(mut entropy) => {
                build::entropy(&entropy)?;
                entropy.rate_limiter = entropy.rate_limiter.and_then(|limiter| limiter.effective());
                self.plan().put_entropy(entropy)
            }
            Call::PutSerial(serial) => {
                super::limits::rate("serial", serial.rate_limiter.as_ref())?;
                // Not part of what a snapshot brings along.
                self.plan.serial = serial;
                Ok(())
            }
            Call::PutMmdsConfig(config) => self.put_mmds_config(config),
            Call::PutMmds(data) => self.told_metadata().and_then(|()| self.store.put(&data)),
            Call::PatchMmds(changes) => self.told_metadata().and_then(|()| self.store.patch(&changes)),
            Call::PutLogger(logger) => self.put_logger(&logger),
            other => self.change_running(other),
        }
    }

    fn change_running(&mut self, call: Call) -> Result<(), Fault> {
        match call {
            Call::Action(Action::InstanceStart) => self.start(),
            Call::Action(Action::SendCtrlAltDel) => {
                self.running()?.request_shutdown().map_err(|error| Fault::of("SendCtrlAltDel", &error))
            }
            Call::PatchVm(state) => self.set_state(state),
            Call::PatchDrive(update) => {
                self.warn_of_burst(&[update.rate_limiter]);
                let vm = self.vm.as_ref().ok_or_else(Fault::before_start)?;
                disks::change(vm, &mut self.plan, &update)
            }
            Call::PatchNetworkInterface(update) => {
                self.warn_of_burst(&[update.rx_rate_limiter, update.tx_rate_limiter]);
                let vm = self.vm.as_ref().ok_or_else(Fault::before_start)?;
                nics::change(vm, &mut self.plan, &update)
            }
            Call::PutMetrics(target) => {
                let path = &target.metrics_path;
                self.meters.open(path).map_err(|why| Fault::new(format!("metrics: metrics_path is {path:?}: {why}")))
            }
            Call::Action(Action::FlushMetrics) => {
                self.flush().map_err(|why| Fault::new(format!("FlushMetrics: {why}")))
            }
            Call::CreateSnapshot(wanted) => self.create_snapshot(&wanted),
            Call::LoadSnapshot(wanted) => self.load_snapshot(&wanted),
            Call::PatchBalloon(update) => self.patch_balloon(update),
            Call::PatchBalloonStatistics(update) => self.patch_balloon_statistics(update),
            Call::Unsupported { what, why, .. } => Err(Fault::not_there(what, why)),
            _ => Err(Fault::not_there("the request", "nothing serves it")),
        }
    }

    /// Refuses what does not go with the machine's state.
    fn check_when(&self, call: &Call) -> Result<(), Fault> {
        match (call.when(), &self.vm) {
            (Some(When::Before), Some(_)) => Err(Fault::after_start()),
            (Some(When::After), None) => Err(Fault::before_start()),
            _ if self.vm.is_some() && call.plugs_device() => Err(Fault::new("PCI is not enabled")),
            _ => Ok(()),
        }
    }

    /// The plan, to be changed by a client.
    fn plan(&mut self) -> &mut super::plan::Plan {
        self.is_planned = true;
        &mut self.plan
    }

    fn set_machine_config(&mut self, update: &MachineConfigUpdate) -> Result<(), Fault> {
        let config = update.apply(&self.plan.machine);
        memory::check(&config, self.plan.balloon.as_ref().map(|balloon| balloon.amount_mib))?;
        if config.smt && config.vcpu_count > 1 {
            self.log.warn("machine-config: smt has no effect: each vCPU is a core of its own to the guest");
        }
        self.plan().machine = config;
        Ok(())
    }

    fn put_boot_source(&mut self, source: BootSource) -> Result<(), Fault> {
        let paths =
            [("kernel_image_path", Some(&source.kernel_image_path)), ("initrd_path", source.initrd_path.as_ref())];
        for (what, path) in paths {
            let Some(path) = path else { continue };
            // A named pipe would not be opened before somebody writes to it.
            let refused = |why: std::io::Error| Fault::new(format!("boot-source: {what} is {path:?}: {why}"));
            if !std::fs::metadata(path).map_err(refused)?.is_file() {
                return Err(Fault::new(format!("boot-source: {what} is {path:?}: it is no file")));
            }
            std::fs::File::open(path).map_err(refused)?;
        }
        if let Some(args) = source.boot_args.as_deref().filter(|args| args.bytes().any(|byte| byte == 0)) {
            return Err(Fault::new(format!("boot-source: boot_args is {args:?}: it holds a NUL")));
        }
        self.plan().boot = Some(source);
        Ok(())
    }

    fn put_vsock(&mut self, mut vsock: Vsock) -> Result<(), Fault> {
        if !(3..u32::MAX).contains(&vsock.guest_cid) {
            let message =
                format!("vsock: guest_cid is {}, allowed are 3 to {}", vsock.guest_cid, u32::MAX.saturating_sub(1));
            return Err(Fault::new(message));
        }
        if vsock.uds_path.is_empty() || std::fs::symlink_metadata(&vsock.uds_path).is_ok() {
            return Err(Fault::new(format!(
                "vsock: uds_path is {:?}, which is empty or there already",
                vsock.uds_path
            )));
        }
        check_socket(&vsock)?;
        vsock.vsock_id = None;
        self.plan().put_vsock(vsock)
    }

    fn put_mmds_config(&mut self, config: MmdsConfig) -> Result<(), Fault> {
        self.store.service(&config)?;
        metadata::check(&config, &self.plan.nics)?;
        self.plan().mmds = Some(config);
        Ok(())
    }

    fn put_logger(&self, logger: &LoggerUpdate) -> Result<(), Fault> {
        let settings = Settings {
            path: logger.log_path.as_deref(),
            level: logger.level,
            shows_level: logger.show_level,
            shows_origin: logger.show_log_origin,
            module: logger.module.as_deref(),
        };
        let path = logger.log_path.as_deref().unwrap_or_default();
        self.log.set(&settings).map_err(|why| Fault::new(format!("logger: log_path is {path:?}: {why}")))
    }

    fn metadata(&self) -> Result<Response, Fault> {
        self.told_metadata()?;
        Ok(Response::json(HttpStatus::Ok, self.store.get()))
    }

    /// A machine that was started without the service has none.
    fn told_metadata(&self) -> Result<(), Fault> {
        if self.vm.is_some() && self.plan.mmds.is_none() { Err(metadata::not_initialized()) } else { Ok(()) }
    }

    fn warn_of_burst(&self, limiters: &[Option<RateLimiter>]) {
        let has_burst = |limiter: &RateLimiter| {
            [limiter.bandwidth, limiter.ops].iter().flatten().any(|bucket| bucket.one_time_burst.unwrap_or(0) > 0)
        };
        if limiters.iter().flatten().any(has_burst) {
            self.log.warn("one_time_burst has no effect: a bucket begins full, with its size");
        }
    }
}

/// Refuses a place at which no socket can be made, as far as that is known before the start.
fn check_socket(vsock: &Vsock) -> Result<(), Fault> {
    let mut alone = VmConfig::new(Boot::linux("of another resource"));
    alone.vsock = Some(VsockConfig::new(vsock.guest_cid.into()).unix_path(&vsock.uds_path));
    alone.validate().map_err(|error| Fault::of("vsock", &error))?;
    let folder = Path::new(&vsock.uds_path).parent().filter(|folder| !folder.as_os_str().is_empty());
    if !folder.is_none_or(Path::is_dir) {
        return Err(Fault::new(format!("vsock: uds_path is {:?}, and its folder does not exist", vsock.uds_path)));
    }
    try_socket(Path::new(&vsock.uds_path))
        .map_err(|why| Fault::new(format!("vsock: uds_path is {:?}: {why}", vsock.uds_path)))
}

/// Makes a socket, which is removed again.
fn try_socket(path: &Path) -> io::Result<()> {
    // What ends in `/` or `/.` has a name only in `Path`.
    let ends_in_name = |name: &OsStr| path.as_os_str().as_bytes().ends_with(name.as_bytes());
    if !path.file_name().is_some_and(ends_in_name) {
        return Err(io::Error::other("it does not end in the name of a file"));
    }
    UnixListener::bind(path)?;
    std::fs::remove_file(path)
}

pub(super) fn no_balloon() -> Fault {
    Fault::new("balloon: there is none")
}

pub(super) fn json(value: &impl Serialize) -> Result<Response, Fault> {
    let text = serde_json::to_string(value).map_err(|why| Fault::new(why.to_string()))?;
    Ok(Response::json(HttpStatus::Ok, text))
}
