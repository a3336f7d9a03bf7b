//! From network interfaces to cards.

use vmcell::{Boot, Nic, NicConfig, Vm, VmConfig};

use super::limits::limits;
use super::plan::Plan;
use crate::api::{NetworkInterface, NetworkInterfaceUpdate};
use crate::fault::Fault;

/// The card of an interface, which is attached to its TAP device when the machine is built.
pub fn nic(interface: &NetworkInterface) -> Result<NicConfig, Fault> {
    let what = name(&interface.iface_id);
    let mut nic = NicConfig::tap(&interface.host_dev_name);
    nic.mac = interface.guest_mac.map(|mac| mac.0);
    nic.mtu = interface.mtu;
    nic.receive_limits = limits(&format!("{what}: rx_rate_limiter"), interface.rx_rate_limiter.as_ref())?;
    nic.send_limits = limits(&format!("{what}: tx_rate_limiter"), interface.tx_rate_limiter.as_ref())?;
    Ok(nic)
}

/// Attaches to the TAP device once to see whether that can be; as clients are told of it.
pub fn checked(mut interface: NetworkInterface) -> Result<NetworkInterface, Fault> {
    let card = nic(&interface)?;
    let refused = |error: vmcell::Error| Fault::of(name(&interface.iface_id), &error);
    let mut alone = VmConfig::new(Boot::linux("of another resource"));
    alone.nics = vec![card.clone()];
    alone.validate().map_err(refused)?;
    Nic::from_config(&card).map_err(refused)?;
    interface.rx_rate_limiter = interface.rx_rate_limiter.and_then(|limiter| limiter.effective());
    interface.tx_rate_limiter = interface.tx_rate_limiter.and_then(|limiter| limiter.effective());
    Ok(interface)
}

/// Changes the limits of a card of a machine that runs.
pub fn change(vm: &Vm, plan: &mut Plan, update: &NetworkInterfaceUpdate) -> Result<(), Fault> {
    let what = name(&update.iface_id);
    let at = plan.nics.iter().position(|nic| nic.iface_id == update.iface_id);
    let Some((at, interface)) = at.and_then(|at| Some((at, plan.nics.get_mut(at)?))) else {
        return Err(Fault::new(format!("{what}: there is no such network interface")));
    };
    let mut changed = interface.clone();
    if let Some(limiter) = &update.rx_rate_limiter {
        changed.rx_rate_limiter = changed.rx_rate_limiter.unwrap_or_default().updated(limiter).effective();
    }
    if let Some(limiter) = &update.tx_rate_limiter {
        changed.tx_rate_limiter = changed.tx_rate_limiter.unwrap_or_default().updated(limiter).effective();
    }
    let card = nic(&changed)?;
    let refused = |error: vmcell::Error| Fault::of(&what, &error);
    let handle = vm.nic_handle(at).map_err(refused)?;
    handle.set_receive_limits(card.receive_limits).map_err(refused)?;
    handle.set_send_limits(card.send_limits).map_err(refused)?;
    *interface = changed;
    Ok(())
}

fn name(id: &str) -> String {
    format!("network interface {id}")
}
