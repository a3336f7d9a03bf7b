//! From a method, a path and a body to what they mean.

use serde::de::DeserializeOwned;

use super::call::{Call, When};
use super::logger::MetricsTarget;
use super::machine_config::{MachineConfig, MachineConfigUpdate};
use super::mmds::{MmdsConfig, MmdsVersion};
use super::snapshot::SnapshotLoad;
use super::{ActionInfo, Drive, DriveUpdate, NetworkInterface, NetworkInterfaceUpdate, VmUpdate, Vsock};
use crate::fault::Fault;
use crate::http::{Method, Request};

const PMEM: &str = "vmcell has no virtio-pmem device; use a drive";
const HOTPLUG: &str = "vmcell has no virtio-mem device; use a balloon";
const HINTING: &str = "vmcell's balloon has free page reporting alone";
const CPU_CONFIG: &str = "registers of CPUs cannot be set one by one; use a cpu_template of machine-config";

/// What a request means, and whether it used what will be removed from the API.
///
/// # Errors
/// The [`Fault`] to be told.
pub fn route(request: &Request) -> Result<(Call, bool), Fault> {
    let mut steps = request.path.trim_start_matches('/').split_terminator('/');
    let path = [steps.next().unwrap_or(""), steps.next().unwrap_or(""), steps.next().unwrap_or("")];
    let body = request.body.as_slice();
    match (&request.method, body.is_empty()) {
        (Method::Get, true) => get(path).map(|call| (call, false)),
        (Method::Get, false) => Err(Fault::new("GET request cannot have a body.")),
        (Method::Put, true) => Err(Fault::new("Empty PUT request.")),
        (Method::Put, false) => put(path, body),
        (Method::Patch, _) => patch(path, body),
        (Method::Delete, true) => delete(path).map(|call| (call, false)),
        (Method::Delete, false) => Err(Fault::new("Empty Delete request.")),
        (Method::Other(_), _) => Err(no_such(&request.method, path[0])),
    }
}

fn get(path: [&str; 3]) -> Result<Call, Fault> {
    match path {
        ["", ..] => Ok(Call::GetInstance),
        ["version", ..] => Ok(Call::GetVersion),
        ["vm", "config", _] => Ok(Call::GetVmConfig),
        ["machine-config", ..] => Ok(Call::GetMachineConfig),
        ["mmds", ..] => Ok(Call::GetMmds),
        ["balloon", "", _] => Ok(Call::GetBalloon),
        ["balloon", "statistics", _] => Ok(Call::GetBalloonStatistics),
        ["balloon", "hinting", "status"] => Ok(missing("balloon/hinting", HINTING, Some(When::After))),
        ["balloon", "hinting", other] => Err(Fault::new(format!("Unrecognized GET request path `/hinting/{other}`."))),
        ["balloon", other, _] => Err(Fault::new(format!("Unrecognized GET request path `{other}`."))),
        ["hotplug", "memory", _] => Ok(missing("hotplug/memory", HOTPLUG, Some(When::After))),
        [other, ..] => Err(no_such(&Method::Get, other)),
    }
}

fn put(path: [&str; 3], body: &[u8]) -> Result<(Call, bool), Fault> {
    let call = match path {
        ["actions", ..] => Call::Action(read::<ActionInfo>(body)?.action_type),
        ["balloon", ..] => Call::PutBalloon(read(body)?),
        ["boot-source", ..] => Call::PutBootSource(read(body)?),
        ["cpu-config", ..] => missing("cpu-config", CPU_CONFIG, Some(When::Before)),
        ["drives", id, _] => Call::PutDrive(drive(id, body)?),
        ["entropy", ..] => Call::PutEntropy(read(body)?),
        ["hotplug", "memory", _] => missing("hotplug/memory", HOTPLUG, Some(When::Before)),
        ["logger", ..] => Call::PutLogger(read(body)?),
        ["machine-config", ..] => {
            let config: MachineConfig = read(body)?;
            let deprecated = config.cpu_template.is_some();
            return Ok((Call::SetMachineConfig(config.into()), deprecated));
        }
        ["metrics", ..] => Call::PutMetrics(read::<MetricsTarget>(body)?),
        ["mmds", "", _] => Call::PutMmds(read(body)?),
        ["mmds", "config", _] => {
            let config: MmdsConfig = read(body)?;
            let deprecated = config.version == MmdsVersion::V1;
            return Ok((Call::PutMmdsConfig(config), deprecated));
        }
        ["mmds", other, _] => return Err(Fault::new(format!("Unrecognized PUT request path `{other}`."))),
        ["network-interfaces", id, _] => Call::PutNetworkInterface(network_interface(id, body)?),
        ["pmem", id, _] => {
            checked_id(id)?;
            missing("pmem", PMEM, None)
        }
        ["serial", ..] => Call::PutSerial(read(body)?),
        ["snapshot", "create", _] => Call::CreateSnapshot(read(body)?),
        ["snapshot", "load", _] => return load(body),
        ["snapshot", "", _] => return Err(Fault::new("Missing snapshot operation type.")),
        ["snapshot", other, _] => return Err(no_such(&Method::Put, &format!("/snapshot/{other}"))),
        ["vsock", ..] => {
            let vsock: Vsock = read(body)?;
            let deprecated = vsock.vsock_id.is_some();
            return Ok((Call::PutVsock(vsock), deprecated));
        }
        [other, ..] => return Err(no_such(&Method::Put, other)),
    };
    Ok((call, false))
}

fn patch(path: [&str; 3], body: &[u8]) -> Result<(Call, bool), Fault> {
    if let ["balloon", "hinting", what] = path {
        return match what {
            "start" | "stop" => Ok((missing("balloon/hinting", HINTING, Some(When::After)), false)),
            other => Err(Fault::new(format!("Unrecognized PATCH request path `/hinting/{other}`."))),
        };
    }
    if body.is_empty() {
        return Err(Fault::new("Empty PATCH request."));
    }
    let call = match path {
        ["balloon", "statistics", _] => Call::PatchBalloonStatistics(read(body)?),
        ["balloon", ..] => Call::PatchBalloon(read(body)?),
        ["drives", id, _] => {
            let update: DriveUpdate = for_id(id, body)?;
            same_drive(id, &update.drive_id)?;
            Call::PatchDrive(update)
        }
        ["hotplug", "memory", _] => missing("hotplug/memory", HOTPLUG, Some(When::After)),
        ["machine-config", ..] => {
            let update: MachineConfigUpdate = read(body)?;
            if update.is_empty() {
                return Err(Fault::new("Empty PATCH request."));
            }
            let deprecated = update.cpu_template.is_some();
            return Ok((Call::SetMachineConfig(update), deprecated));
        }
        ["mmds", ..] => Call::PatchMmds(read(body)?),
        ["network-interfaces", id, _] => {
            let update: NetworkInterfaceUpdate = for_id(id, body)?;
            same_interface(id, &update.iface_id)?;
            Call::PatchNetworkInterface(update)
        }
        ["pmem", id, _] => {
            checked_id(id)?;
            missing("pmem", PMEM, Some(When::After))
        }
        ["vm", ..] => Call::PatchVm(read::<VmUpdate>(body)?.state),
        [other, ..] => return Err(no_such(&Method::Patch, other)),
    };
    Ok((call, false))
}

fn delete(path: [&str; 3]) -> Result<Call, Fault> {
    let ["drives" | "pmem" | "network-interfaces", id, _] = path else {
        return Err(no_such(&Method::Delete, path[0]));
    };
    checked_id(id)?;
    Ok(Call::RemoveDevice)
}

fn load(body: &[u8]) -> Result<(Call, bool), Fault> {
    let load: SnapshotLoad = read(body)?;
    let which = match (&load.mem_backend, &load.mem_file_path) {
        (Some(_), Some(_)) => "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
        (None, None) => "missing field: either `mem_backend` or `mem_file_path` is required",
        _ => {
            let deprecated = load.mem_file_path.is_some() || load.enable_diff_snapshots;
            return Ok((Call::LoadSnapshot(load), deprecated));
        }
    };
    Err(unreadable(which))
}

fn drive(id: &str, body: &[u8]) -> Result<Drive, Fault> {
    let drive: Drive = for_id(id, body)?;
    same_drive(id, &drive.drive_id)?;
    Ok(drive)
}

fn same_drive(in_path: &str, in_body: &str) -> Result<(), Fault> {
    if in_path == in_body {
        return Ok(());
    }
    Err(Fault::new("The id from the path does not match the id from the body!"))
}

fn network_interface(id: &str, body: &[u8]) -> Result<NetworkInterface, Fault> {
    let interface: NetworkInterface = for_id(id, body)?;
    same_interface(id, &interface.iface_id)?;
    Ok(interface)
}

fn same_interface(in_path: &str, in_body: &str) -> Result<(), Fault> {
    if in_path == in_body {
        return Ok(());
    }
    Err(Fault::new(format!("The id from the path [{in_path}] does not match the id from the body [{in_body}]!")))
}

/// Reads the body of a request whose path has a name.
fn for_id<T: DeserializeOwned>(id: &str, body: &[u8]) -> Result<T, Fault> {
    checked_id(id)?;
    read(body)
}

fn checked_id(id: &str) -> Result<(), Fault> {
    if id.is_empty() {
        return Err(Fault::new("The ID cannot be empty."));
    }
    if !id.chars().all(|c| c == '_' || c.is_alphanumeric()) {
        return Err(Fault::new("API Resource IDs can only contain alphanumeric characters and underscores."));
    }
    Ok(())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|why| unreadable(&why.to_string()))
}

fn unreadable(why: &str) -> Fault {
    Fault::new(format!("An error occurred when deserializing the json body of a request: {why}."))
}

fn no_such(method: &Method, path: &str) -> Fault {
    Fault::new(format!("Invalid request method and/or path: {} {path}.", method.name()))
}

fn missing(what: &'static str, why: &'static str, only: Option<When>) -> Call {
    Call::Unsupported { what, why, only }
}

#[cfg(test)]
#[path = "route_test.rs"]
mod tests;
