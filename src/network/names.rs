//! Which machines have which names.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::address::MachineAddress;
use super::party::PortEnd;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::sync::atomic::{AtomicUsize, Ordering};

/// A machine has no more names.
const MOST_NAMES: usize = 8;
/// A label has no more bytes.
const LONGEST: usize = 63;

/// The names of a network's machines, in lower case.
#[derive(Default)]
pub(super) struct Names {
    machines: BTreeMap<Box<str>, Vec<Arc<PortEnd>>>,
    services: BTreeMap<Box<str>, Ipv6Addr>,
    /// Where the next answer begins, if it cannot hold all.
    next: AtomicUsize,
}

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Machine(MachineAddress),
    Service(Ipv6Addr),
}

impl Clone for Names {
    fn clone(&self) -> Self {
        let (machines, services) = (self.machines.clone(), self.services.clone());
        Self { machines, services, next: AtomicUsize::new(self.next.load(Ordering::Relaxed)) }
    }
}

impl Names {
    pub(super) fn add(&mut self, name: &str, machine: &Arc<PortEnd>) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        let lower = checked(name)?;
        if let Some(service) = self.services.get(&lower) {
            return refused(format!("the name {name:?} is that of the service {service}"));
        }
        let names = self.machines.values().flatten().filter(|other| Arc::ptr_eq(other, machine)).count();
        if names >= MOST_NAMES {
            return refused(format!("the machine {} has {MOST_NAMES} names, which is the limit", machine.address));
        }
        let machines = self.machines.entry(lower).or_default();
        if machines.iter().any(|other| Arc::ptr_eq(other, machine)) {
            return refused(format!("the machine {} has the name {name:?} already", machine.address));
        }
        machines.push(Arc::clone(machine));
        Ok(())
    }

    /// Gives a service a name, which nobody else has.
    pub(super) fn add_service(&mut self, name: &str, service: Ipv6Addr) -> Result<()> {
        let lower = checked(name)?;
        let taken = match (self.machines.get(&lower).and_then(|machines| machines.first()), self.services.get(&lower)) {
            (Some(machine), _) => format!("the machine {}", machine.address),
            (None, Some(other)) => format!("the service {other}"),
            (None, None) => {
                self.services.insert(lower, service);
                return Ok(());
            }
        };
        let message = format!("the name {name:?} was asked for the service {service}, and is that of {taken}");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }

    pub(super) fn remove_service(&mut self, service: Ipv6Addr) {
        self.services.retain(|_, other| *other != service);
    }

    /// Whether a machine has any name.
    pub(super) fn has(&self, machine: &Arc<PortEnd>) -> bool {
        self.machines.values().flatten().any(|other| Arc::ptr_eq(other, machine))
    }

    pub(super) fn remove(&mut self, machine: &Arc<PortEnd>) {
        self.machines.retain(|_, machines| {
            machines.retain(|other| !Arc::ptr_eq(other, machine));
            !machines.is_empty()
        });
    }

    /// Calls `each` for the machines of a name that run, until it says that there is no room for more, beginning with another one each
    /// time; or for the service that has the name. Says whether there are any.
    pub(super) fn find(&self, label: &[u8], mut each: impl FnMut(Named) -> bool) -> bool {
        let mut lower = [0; LONGEST];
        let Some(name) = lower.get_mut(..label.len()) else { return false };
        name.copy_from_slice(label);
        name.make_ascii_lowercase();
        let Ok(name) = std::str::from_utf8(name) else { return false };
        if let Some(service) = self.services.get(name) {
            each(Named::Service(*service));
            return true;
        }
        let Some(machines) = self.machines.get(name) else { return false };
        let first = self.first(machines.len());
        let (before, from) = machines.split_at_checked(first).unwrap_or_default();
        let mut any = false;
        for machine in from.iter().chain(before).filter(|machine| machine.runs()) {
            any = true;
            if !each(Named::Machine(machine.address)) {
                break;
            }
        }
        any
    }

    /// Calls `each` for the names of machines that run, and of services, in the same way.
    pub(super) fn running(&self, mut each: impl FnMut(&str) -> bool) {
        let runs = |machines: &[Arc<PortEnd>]| machines.iter().any(|machine| machine.runs());
        let machines = self.machines.iter().map(|(name, machines)| (name, runs(machines)));
        let all = machines.chain(self.services.keys().map(|name| (name, true)));
        let first = self.first(self.machines.len().saturating_add(self.services.len()));
        let (from, before) = (all.clone().skip(first), all.take(first));
        for (name, _) in from.chain(before).filter(|(_, runs)| *runs) {
            if !each(name) {
                break;
            }
        }
    }

    fn first(&self, count: usize) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or(0)
    }
}

/// In lower case, as host names are (RFC 1123).
fn checked(name: &str) -> Result<Box<str>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_plain);
    if !fits || name.starts_with('-') || name.ends_with('-') {
        let message = format!(
            "{name:?} is no name of a machine or a service, which has 1 to 63 letters, digits and hyphens inside; \".internal\" is put behind it"
        );
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(name.to_ascii_lowercase().into())
}
