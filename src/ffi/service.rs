//! Services of private networks: addresses that stand for several machines.

use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::time::Duration;

use super::caller::{ReleaseUser, User};
use super::convert::{Out, OutText, read_structure, read_text};
use super::failure::FfiResult;
use super::guard::{free, guard};
use super::machine_address::machine;
use super::network::NetworkObject;
use super::objects::{self, Object, Registered};
use super::report::{ErrorObject, Report};
use crate::error::{Error, ErrorKind};
use crate::network::{Demand, MachineAddress, Service, ServiceConfig, ServiceMember, Subnet};
use crate::sys::lock;

/// An address of a private network that stands for several machines, its members: a TCP connection, or whatever else flows to it, goes to the member
/// with the least flows, and stays there. A rule to its address says who may use it. docs/network.md says what clients notice. Made by
/// vmcell_service_new; freed by vmcell_service_free, which ends its flows. Any thread may make any call.
pub struct ServiceObject(Service);

impl Object for ServiceObject {
    const NAME: &'static str = "vmcell_service";
}

/// Is called when a member of a service is wanted, and returns 0 if there is one, or one is on its way, or another number, such as an errno: then what
/// waits is refused. `service` is borrowed until it returns: vmcell_service_add adds the member, once its server is up. `host` and `machine` are the member
/// that has a packet and does not run (it is paused, or its driver is not up), or both 0 if any will do. It is called on a thread of its own, one call at a
/// time, perhaps before vmcell_service_new has returned, and may block. It must not unwind: no C++ exception, no longjmp.
pub type DemandCall =
    Option<unsafe extern "C" fn(user: *mut c_void, service: *mut ServiceObject, host: u32, machine: u32) -> i32>;

/// The settings of a service. Set `struct_size` to sizeof(vmcell_service_settings), and what has no need of another value to 0 or NULL, which stands for
/// the default.
#[repr(C)]
pub struct ServiceSettings {
    /// The size of this structure, in bytes.
    pub struct_size: usize,
    /// The network's name server has its address under "NAME.internal", whether members run or not. The default is no name.
    pub name: *const c_char,
    /// How many flows a member is to have at most, 1 to 65536: above that, another member is wanted. The default is 1024, or `hard_limit` if that is less.
    pub soft_limit: u32,
    /// How many flows a member has at the very most, `soft_limit` to 65536. The default is 1024, or `soft_limit` if that is more.
    pub hard_limit: u32,
    /// How many packets may wait for a member, 1 to 4096. The default is 256.
    pub held_packets: usize,
    /// How many bytes these may have, with 128 for each packet: 2048 to 16777216. The default is 262144.
    pub held_bytes: usize,
    /// How many milliseconds a packet waits before it is refused, 100 to 300000. The default is 30000.
    pub hold_time_ms: u32,
    /// For how many milliseconds after the end of a call there is no other one, 10 to 3600000. The default is 1000.
    pub call_interval_ms: u32,
    /// Is called when a member is wanted. The default is that a flow without a member is refused.
    pub on_demand: DemandCall,
    /// Passed to `on_demand`.
    pub user: *mut c_void,
    /// Called for `user` at the end, also if vmcell_service_new fails, unless it fails for the settings' `struct_size`. It may come after
    /// vmcell_service_free has returned. The default is that nothing is called.
    pub release: ReleaseUser,
}

impl ServiceSettings {
    const NONE: Self = Self {
        struct_size: size_of::<Self>(),
        name: std::ptr::null(),
        soft_limit: 0,
        hard_limit: 0,
        held_packets: 0,
        held_bytes: 0,
        hold_time_ms: 0,
        call_interval_ms: 0,
        on_demand: None,
        user: std::ptr::null_mut(),
        release: None,
    };

    /// # Safety
    /// The name is NULL or points to bytes that end with a NUL, and `on_demand` may be called with what the header says until `user` is released.
    unsafe fn config(&self, user: User) -> FfiResult<ServiceConfig> {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let or = |value: usize, otherwise: usize| if value == 0 { otherwise } else { value };
        let mut config = ServiceConfig::new();
        let (soft, hard) = config.flow_limits();
        config = match (size(self.soft_limit), size(self.hard_limit)) {
            (0, 0) => config,
            (0, most) => config.limits(soft.min(most), most),
            (most, 0) => config.limits(most, hard.max(most)),
            (soft, hard) => config.limits(soft, hard),
        };
        let (packets, bytes) = config.held_limits();
        config = config.held(or(self.held_packets, packets), or(self.held_bytes, bytes));
        if self.hold_time_ms != 0 {
            config = config.hold_time(Duration::from_millis(self.hold_time_ms.into()));
        }
        if self.call_interval_ms != 0 {
            config = config.call_interval(Duration::from_millis(self.call_interval_ms.into()));
        }
        if !self.name.is_null() {
            // SAFETY: the caller promises the same.
            config = config.name(&unsafe { read_text(self.name, "settings->name") }?);
        }
        if let Some(call) = self.on_demand {
            let user = Mutex::new(user);
            config = config.on_demand(move |demand| {
                let user = lock(&user);
                ask(demand, |service, host, machine| {
                    // SAFETY: the caller promises that it may be called; the lock keeps other threads away.
                    unsafe { call(user.user, service, host, machine) }
                })
            });
        }
        Ok(config)
    }
}

/// Has C find a member.
fn ask(demand: &Demand, call: impl FnOnce(*mut ServiceObject, u32, u32) -> i32) -> crate::error::Result<()> {
    let refused = |message: String| Error::new(ErrorKind::Network, message);
    let service = Registered::new(ServiceObject(demand.service().clone())).map_err(|e| refused(e.to_string()))?;
    let (host, machine) = demand.member().map_or((0, 0), |member| (member.host().into(), member.machine()));
    match call(service.handle(), host, machine) {
        0 => Ok(()),
        number => Err(refused(format!("a member of a service was refused with {number}"))),
    }
}

/// Makes service number `number` of a network. `network` is borrowed, `settings` copied; NULL stands for the defaults. Never blocks for long.
///
/// Errors: INVALID_CONFIG for a number or a name that is in use, what is no name, a setting that is out of range, and above 1024 services; BAD_VALUE for a
/// `struct_size`; HOST if the host gives no thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_new(
    network: *const NetworkObject,
    number: u32,
    settings: *const ServiceSettings,
    service: *mut *mut ServiceObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let settings = match settings.is_null() {
            true => ServiceSettings::NONE,
            // SAFETY: not NULL, so the header demands a structure whose size stands in front.
            false => unsafe { read_structure(settings, size_of::<ServiceSettings>(), "settings") }?,
        };
        let user = User { user: settings.user, release: settings.release };
        // SAFETY: the header demands NULL or a place for the result.
        let service = unsafe { Out::new(service, "service") }?;
        let network = objects::get(network)?;
        // SAFETY: the header demands what is asked for here.
        let config = unsafe { settings.config(user) }?;
        let address = network.network().subnet().service(number);
        service.insert(ServiceObject(network.network().service(address, config)?))
    })
}

/// Writes the IPv6 address of a service as text, such as "fdac:1705:0:7:0:1:0:50", with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length`
/// is set to what it needs without the NUL, at most 39. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_address(
    service: *const ServiceObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        out.write(&objects::get(service)?.0.address().to_string());
        Ok(())
    })
}

/// Makes a machine a member, which has a port in the network; or has one that is drained get new flows again. It gets flows as soon as its driver is up, so add
/// one that boots when its server is up. The end of its VM takes it out. Never blocks for long.
///
/// Errors: BAD_VALUE for a number that no machine has; INVALID_CONFIG for a machine without a port, or that is a member already, and above 256 members.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_add(
    service: *mut ServiceObject,
    host: u32,
    number: u32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        let service = objects::get(service)?;
        Ok(service.0.add(service.member(host, number)?)?)
    })
}

/// Gives a member no new flows; those that it has go on. `was_member` is set to 1 if it is one, else to 0, unless it is NULL. Never blocks for long.
///
/// Errors: BAD_VALUE for a number that no machine has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_drain(
    service: *mut ServiceObject,
    host: u32,
    number: u32,
    was_member: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands NULL or a place for the result.
    guard(report, || unsafe { change(service, (host, number), was_member, Service::drain) })
}

/// Takes a member out: its flows end. `was_member` is set to 1 if it was one, else to 0, unless it is NULL. Never blocks for long.
///
/// Errors: BAD_VALUE for a number that no machine has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_remove(
    service: *mut ServiceObject,
    host: u32,
    number: u32,
    was_member: *mut i32,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    // SAFETY: the header demands NULL or a place for the result.
    guard(report, || unsafe { change(service, (host, number), was_member, Service::remove) })
}

impl ServiceObject {
    /// A machine of the network, which the service's own address names.
    fn member(&self, host: u32, number: u32) -> FfiResult<MachineAddress> {
        let [_, r0, r1, r2, n0, n1, n2, n3, ..] = self.0.address().octets();
        machine(Subnet::new([r0, r1, r2], u32::from_be_bytes([n0, n1, n2, n3])), host, number)
    }
}

/// # Safety
/// `was_member` is NULL, or nothing else uses the place until the call returns.
unsafe fn change(
    service: *mut ServiceObject,
    (host, number): (u32, u32),
    was_member: *mut i32,
    change: impl FnOnce(&Service, MachineAddress) -> bool,
) -> FfiResult<()> {
    let service = objects::get(service)?;
    let was = change(&service.0, service.member(host, number)?);
    if !was_member.is_null() {
        // SAFETY: not NULL, and the caller's promise for the rest.
        unsafe { Out::new(was_member, "was_member") }?.write(i32::from(was));
    }
    Ok(())
}

/// Writes the members of a service as a JSON array, in no order, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits; `length` is set to what it
/// needs without the NUL. The members of each element are "host", "machine", "runs" (its driver is up, and it is not paused), "draining", "flows" (how many it
/// has now) and "flows_total" (how many it was given). Never blocks for long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_members_json(
    service: *const ServiceObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        let members = objects::get(service)?.0.members();
        out.write(&serde_json::Value::Array(members.iter().map(json_of).collect()).to_string());
        Ok(())
    })
}

fn json_of(member: &ServiceMember) -> serde_json::Value {
    serde_json::json!({
        "host": member.machine.host(),
        "machine": member.machine.machine(),
        "runs": member.runs,
        "draining": member.draining,
        "flows": member.flows,
        "flows_total": member.flows_total,
    })
}

/// Writes the counters of a service as a JSON object, as vmcell_tunnel_metrics_json does: "service_flows" that were given to members; packets "service_held",
/// "service_replayed" of these, "service_refused" of these, and "service_waiting", those that are held now; "service_calls" of `on_demand`, and
/// "service_calls_refused". A later version may have more. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_service_metrics_json(
    service: *const ServiceObject,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands so many bytes, and a place for the length.
        let out = unsafe { OutText::new(buffer, capacity, length) }?;
        let service = objects::get(service)?;
        let mut metrics = service.0.metrics();
        metrics.insert("service_waiting".to_owned(), service.0.waiting() as u64);
        out.write(&serde_json::json!(metrics).to_string());
        Ok(())
    })
}

/// Frees a service: its address is free again, its flows end, and what waits is refused. Does not wait for a call of `on_demand`, which keeps the service
/// until it returns. NULL is fine.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_service_free(service: *mut ServiceObject) -> i32 {
    free(service, drop)
}

#[cfg(test)]
#[path = "service_test.rs"]
mod tests;
