//! Private networks between VMs.

use std::ffi::c_char;
use std::time::Duration;

use super::convert::{Out, OutArray, OutText, read_structure, read_text};
use super::failure::{Failure, FfiResult, VMCELL_ERROR_BAD_VALUE, VMCELL_ERROR_INVALID_CONFIG};
use super::guard::{free, guard};
use super::machine_address::{AddressNumbers, machine, subnet};
use super::objects::{self, Object};
use super::report::{ErrorObject, Report};
use crate::network::{Network, NetworkConfig, Refusal, Rule};

/// A private network between VMs in this process: a switch that needs no TAP device and no right of root's. Nothing passes until
/// vmcell_network_set_rules allows it, in either direction. Machines come to it by vmcell_network_port_new, other hosts and laptops by
/// vmcell_tunnel_new. docs/network.md says what passes, and what guests need. Made by vmcell_network_new; freed by vmcell_network_free, before or
/// after its ports and tunnels, which keep it. Any thread may make any call.
pub struct NetworkObject(Network);

impl Object for NetworkObject {
    const NAME: &'static str = "vmcell_network";
}

impl NetworkObject {
    pub(super) fn network(&self) -> &Network {
        &self.0
    }
}

/// The settings of a network. Set `struct_size` to sizeof(vmcell_network_settings), and what has no need of another value to 0, which stands for the
/// default.
#[repr(C)]
pub struct NetworkSettings {
    /// The size of this structure, in bytes.
    pub struct_size: usize,
    /// How long a packet may be, in bytes with its IPv6 header: 1280 to 65535. The default is 1420, which fits through a tunnel on a link of 1500.
    pub mtu: u32,
    /// How many flows are remembered that one machine, or what lies behind one tunnel, has begun: a power of two from 64 to 16384. The
    /// default is 4096.
    pub flows: u32,
    /// How many ports the network may have at once, 1 to 65536. The default is 4096.
    pub ports: usize,
    /// After how many milliseconds without a packet a TCP connection is forgotten: 1000 to 604800000, which are seven days. The default is two hours.
    pub tcp_idle_ms: u32,
    /// The same for what is not TCP. The default is two minutes.
    pub idle_ms: u32,
    /// How many bytes of packets may wait for members of all services together, with 128 for each packet: 65536 to 1073741824. The default is 8388608.
    pub held_bytes: usize,
}

impl NetworkSettings {
    fn apply(&self, mut config: NetworkConfig) -> FfiResult<NetworkConfig> {
        if self.mtu != 0 {
            let refused = || format!("settings->mtu is {}, allowed are 1280 to 65535", self.mtu);
            let mtu = u16::try_from(self.mtu).map_err(|_| Failure::new(VMCELL_ERROR_BAD_VALUE, refused()))?;
            config = config.mtu(mtu);
        }
        if self.flows != 0 {
            config = config.flows(usize::try_from(self.flows).unwrap_or(usize::MAX));
        }
        if self.ports != 0 {
            config = config.ports(self.ports);
        }
        if self.held_bytes != 0 {
            config = config.held_bytes(self.held_bytes);
        }
        let (tcp, other) = config.idle_limits();
        let or = |millis: u32, otherwise| if millis == 0 { otherwise } else { Duration::from_millis(millis.into()) };
        Ok(config.flow_idle(or(self.tcp_idle_ms, tcp), or(self.idle_ms, other)))
    }
}

/// Makes a network without machines, in which nothing is allowed. `realm` is 0 to 0xffffff, and drawn by lot once, `number` the network in it: the
/// addresses follow from them (vmcell_machine_address). `settings` is copied; NULL stands for the defaults. Never blocks.
///
/// Errors: BAD_VALUE for another realm, or a `struct_size`; INVALID_CONFIG for a setting that is out of range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_new(
    realm: u32,
    number: u32,
    settings: *const NetworkSettings,
    network: *mut *mut NetworkObject,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let network = unsafe { Out::new(network, "network") }?;
        let mut config = NetworkConfig::new(subnet(realm, number)?);
        if !settings.is_null() {
            // SAFETY: not NULL, so the header demands a structure whose size stands in front.
            let settings = unsafe { read_structure(settings, size_of::<NetworkSettings>(), "settings") }?;
            config = settings.apply(config)?;
        }
        network.insert(NetworkObject(Network::new(config)?))
    })
}

/// Sets what may pass, in place of the rules before, also while VMs run: at most 1024 rules, one a line; empty lines, and those that begin with
/// '#', say nothing. The first rule that fits a flow decides whether it may begin; if none fits, it may not. Answers pass by themselves. A
/// rule reads "allow tcp 80-89 from fdac:1705:0:7:0:100::/88 to fdac:1705:0:7:0:1ff:fe00:2": "allow" or "deny"; then "all", "tcp", "udp", "icmp", or
/// "protocol" and its number; behind "tcp" and "udp" a port, or the first and the last one, if not all; then "from" and "to" with a
/// range of addresses, if not everybody. Flows that are not allowed any more end. Never blocks for long.
///
/// Errors: INVALID_CONFIG, with the number of the line, for what is no rule, and for too many. Then those before stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_set_rules(
    network: *mut NetworkObject,
    rules: *const c_char,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let text = unsafe { read_text(rules, "rules") }?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read = |(number, line): (usize, &str)| {
            line.parse::<Rule>().map_err(|error| error.about(&format!("line {number} of the rules")))
        };
        let rules = said.map(read).collect::<crate::error::Result<Vec<_>>>()?;
        Ok(objects::get(network)?.0.set_rules(&rules)?)
    })
}

/// Writes how often each rule has decided, as a JSON array in the order of the rules, with a NUL behind it, into `buffer` of `capacity` bytes, if it fits;
/// `length` is set to what it needs without the NUL. Each element has the members "rule" (its text), "flows" (how many it has let begin, or how many
/// packets that would have begun one it has refused), and "packets" and "bytes", which have passed by it, answers among them. Never blocks for long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_rule_counts_json(
    network: *const NetworkObject,
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
        let counts = objects::get(network)?.0.rule_counts();
        let json = counts.iter().map(|count| {
            let (rule, flows) = (count.rule.to_string(), count.flows);
            serde_json::json!({"rule": rule, "flows": flows, "packets": count.packets, "bytes": count.bytes})
        });
        out.write(&serde_json::Value::Array(json.collect()).to_string());
        Ok(())
    })
}

/// Sets `count` to how many frames and packets of the network were dropped for a reason, which has one of the names of docs/network.md: "policy", for
/// instance, if no rule allowed them. What one machine sent is among the counters of its interface in vmcell_vm_metrics_json, as
/// "network_dropped_" and the name. Never blocks for long.
///
/// Errors: BAD_VALUE for another name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_dropped(
    network: *const NetworkObject,
    reason: *const c_char,
    count: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let count = unsafe { Out::new(count, "count") }?;
        // SAFETY: the header demands NULL or a text that ends with a NUL.
        let name = unsafe { read_text(reason, "reason") }?;
        let network = objects::get(network)?;
        let Some(reason) = Refusal::ALL.into_iter().find(|reason| reason.name() == name) else {
            let allowed = Refusal::ALL.map(Refusal::name).join(", ");
            return Err(Failure::new(VMCELL_ERROR_BAD_VALUE, format!("reason is {name:?}, allowed are {allowed}")));
        };
        count.write(network.0.dropped(reason));
        Ok(())
    })
}

/// Writes which machines have ports now to `machines`, which has room for `capacity`, in no order, and how many they are to `count`, which may be more.
/// `machines` may be NULL if `capacity` is 0. Never blocks for long.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_machines(
    network: *const NetworkObject,
    machines: *mut AddressNumbers,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let count = unsafe { Out::new(count, "count") }?;
        // SAFETY: the header demands NULL or that many places.
        let places = unsafe { OutArray::new(machines, capacity, "machines") }?;
        let found = objects::get(network)?.0.machines();
        let numbers: Vec<AddressNumbers> = found.into_iter().map(Into::into).collect();
        places.write(&numbers);
        count.write(numbers.len());
        Ok(())
    })
}

/// Sets `idle_ms` to how many milliseconds ago the last packet was sent to a machine or by it, or, if there was none, its port was made. What was
/// dropped, and neighbour discovery, do not count. Never blocks for long.
///
/// Errors: BAD_VALUE for a number that no machine has; INVALID_CONFIG if the machine has no port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcell_network_idle(
    network: *const NetworkObject,
    host: u32,
    number: u32,
    idle_ms: *mut u64,
    error: *mut *mut ErrorObject,
) -> i32 {
    // SAFETY: the header demands NULL or a place for a pointer.
    let report = unsafe { Report::to(error) };
    guard(report, || {
        // SAFETY: the header demands NULL or a place for the result.
        let place = unsafe { Out::new(idle_ms, "idle_ms") }?;
        let network = objects::get(network)?;
        let address = machine(network.0.subnet(), host, number)?;
        let Some(idle) = network.0.idle(address) else {
            let message = format!("the machine {address} has no port in the network {}", network.0.subnet());
            return Err(Failure::new(VMCELL_ERROR_INVALID_CONFIG, message));
        };
        place.write(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        Ok(())
    })
}

/// Lets go of a network. Its ports, and the VMs and tunnels that have them, keep it. NULL is fine. Never blocks.
///
/// Errors: BAD_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn vmcell_network_free(network: *mut NetworkObject) -> i32 {
    free(network, drop)
}
