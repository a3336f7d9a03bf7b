//! The VMs of an app.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use vmcell::network::{MachineAddress, Network, Prefix, Service, ServiceConfig};

use crate::fault::{Fault, Result};
use crate::machine::{Machine, Phase};
use crate::state::AppRow;

/// The host's number in its network.
const HOST: u16 = 1;
/// An app has so many numbers for VMs.
const SLOTS: u32 = 255;

/// The VMs of an app, and the address that stands for them.
pub struct Fleet {
    /// The app's number.
    pub number: u32,
    /// `APP.internal`, until it is closed.
    service: Mutex<Option<Service>>,
    machines: Mutex<Vec<Arc<Machine>>>,
    turn: AtomicUsize,
}

impl Fleet {
    /// A fleet without VMs, whose address is known at once.
    ///
    /// # Errors
    /// The network has no room for it.
    pub fn new(network: &Network, row: &AppRow) -> Result<Arc<Self>> {
        let known = Arc::new(OnceLock::<Weak<Self>>::new());
        let asked = Arc::clone(&known);
        let config = ServiceConfig::new().name(&row.name).on_demand(move |demand| {
            let gone = || vmcell::Error::new(vmcell::ErrorKind::InvalidState, "no VM of the app takes traffic");
            asked.get().and_then(Weak::upgrade).filter(|fleet| fleet.wake(demand.member())).map(drop).ok_or_else(gone)
        });
        let service = network.service(network.subnet().service(row.number), config)?;
        let service = Mutex::new(Some(service));
        let fleet =
            Arc::new(Self { number: row.number, service, machines: Mutex::default(), turn: AtomicUsize::new(0) });
        let _ = known.set(Arc::downgrade(&fleet));
        Ok(fleet)
    }

    /// Wakes a VM that is suspended: this one, or any. Is there one that is awake now, by whomever?
    pub(super) fn wake(&self, member: Option<MachineAddress>) -> bool {
        let mut machines = self.machines();
        machines
            .retain(|machine| member.is_none_or(|member| machine.plan.address == member) && machine.takes_traffic());
        // One that sleeps first: all others may have as many flows as they can have.
        machines.sort_by_key(|machine| machine.phase() != Phase::Suspended);
        machines.iter().any(|machine| machine.wake().is_ok() && machine.phase() == Phase::Healthy)
    }

    /// The address that stands for its VMs.
    ///
    /// # Errors
    /// The fleet is closed: its app is destroyed.
    pub fn service(&self) -> Result<Service> {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        service.ok_or_else(|| Fault::new("the app is destroyed"))
    }

    /// Gives the address back, whoever else knows the fleet. Its VMs have given it back when they ended.
    pub(super) fn close(&self) {
        self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Machine>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its VMs, the old and the new ones.
    #[must_use]
    pub fn machines(&self) -> Vec<Arc<Machine>> {
        self.lock().clone()
    }

    /// The lowest number that no VM has, and its address.
    ///
    /// # Errors
    /// All are taken.
    pub fn free(&self, network: &Network) -> Result<(u32, MachineAddress)> {
        let machines = self.lock();
        let free = (1..=SLOTS).find(|slot| machines.iter().all(|machine| machine.plan.slot != *slot));
        let slot =
            free.ok_or_else(|| Fault::new(format!("there are {SLOTS} VMs of the app, and no more are allowed")))?;
        Ok((slot, network.subnet().machine(HOST, (self.number << 8) | slot)?))
    }

    /// Adds a VM.
    pub fn add(&self, machine: Arc<Machine>) {
        self.lock().push(machine);
    }

    /// Ends these VMs, side by side, and forgets them.
    pub fn end(&self, machines: &[Arc<Machine>]) {
        std::thread::scope(|scope| {
            for machine in machines {
                scope.spawn(|| machine.stop());
            }
        });
        self.lock().retain(|machine| !machines.iter().any(|ended| Arc::ptr_eq(ended, machine)));
    }

    /// One of the VMs that take traffic, another one each time.
    ///
    /// # Errors
    /// There is none.
    pub fn pick(&self, app: &str) -> Result<Arc<Machine>> {
        let machines: Vec<_> = self.machines().into_iter().filter(|machine| machine.takes_traffic()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let picked = turn.checked_rem(machines.len()).and_then(|place| machines.get(place)).cloned();
        picked.ok_or_else(|| {
            Fault::new(format!("no VM of {app} takes connections"))
                .next(format!("`cell status {app}` says why; `cell logs {app}` what they said."))
        })
    }
}

/// The prefix that the addresses of all VMs of the app with this number are in.
///
/// # Errors
/// None: an app's number is in bounds.
pub(super) fn prefix(network: &Network, number: u32) -> Result<Prefix> {
    let first = network.subnet().machine(HOST, (number << 8) | 1)?.ip();
    // The last 8 bits are the VM's number.
    Ok(Prefix::new((first.to_bits() & !0xff).into(), 120)?)
}
