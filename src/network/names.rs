//! Which machines have which names.

use std::collections::BTreeMap;
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
    /// Where the next answer begins, if it cannot hold all.
    next: AtomicUsize,
}

impl Clone for Names {
    fn clone(&self) -> Self {
        Self { machines: self.machines.clone(), next: AtomicUsize::new(self.next.load(Ordering::Relaxed)) }
    }
}

impl Names {
    pub(super) fn add(&mut self, name: &str, machine: &Arc<PortEnd>) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
        check(name)?;
        let names = self.machines.values().flatten().filter(|other| Arc::ptr_eq(other, machine)).count();
        if names >= MOST_NAMES {
            return refused(format!("the machine {} has {MOST_NAMES} names, which is the limit", machine.address));
        }
        let machines = self.machines.entry(name.to_ascii_lowercase().into()).or_default();
        if machines.iter().any(|other| Arc::ptr_eq(other, machine)) {
            return refused(format!("the machine {} has the name {name:?} already", machine.address));
        }
        machines.push(Arc::clone(machine));
        Ok(())
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
    /// time. Says whether there are any.
    pub(super) fn find(&self, label: &[u8], mut each: impl FnMut(MachineAddress) -> bool) -> bool {
        let mut lower = [0; LONGEST];
        let Some(name) = lower.get_mut(..label.len()) else { return false };
        name.copy_from_slice(label);
        name.make_ascii_lowercase();
        let Some(machines) = std::str::from_utf8(name).ok().and_then(|name| self.machines.get(name)) else {
            return false;
        };
        let first = self.first(machines.len());
        let (before, from) = machines.split_at_checked(first).unwrap_or_default();
        let mut any = false;
        for machine in from.iter().chain(before).filter(|machine| machine.runs()) {
            any = true;
            if !each(machine.address) {
                break;
            }
        }
        any
    }

    /// Calls `each` for the names of machines that run, in the same way.
    pub(super) fn running(&self, mut each: impl FnMut(&str) -> bool) {
        let first = self.first(self.machines.len());
        let (from, before) = (self.machines.iter().skip(first), self.machines.iter().take(first));
        let running = from.chain(before).filter(|(_, machines)| machines.iter().any(|machine| machine.runs()));
        for (name, _) in running {
            if !each(name) {
                break;
            }
        }
    }

    fn first(&self, count: usize) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count).unwrap_or(0)
    }
}

/// As host names are (RFC 1123).
fn check(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_plain);
    if !fits || name.starts_with('-') || name.ends_with('-') {
        let message =
            format!("{name:?} is no name for a machine, which has 1 to 63 letters, digits and hyphens inside");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}
