//! The VMs of an app.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use vmcell::network::{MachineAddress, Network, Prefix, Service, ServiceConfig};

use super::mesh::Mesh;
use crate::fault::{Fault, Result};
use crate::link::Request;
use crate::machine::{Machine, Phase};
use crate::state::AppRow;

/// For another host to wake a VM.
const WAKE: Duration = Duration::from_secs(20);
/// See [`Fleet::settle`]: what is told each second is seen within this.
const SETTLE: Duration = Duration::from_secs(3);
/// A VM whose packets have stopped for so long is taken for one that has nothing to do.
const STILL: Duration = Duration::from_secs(1);
/// An app has so many numbers for VMs.
const SLOTS: u32 = 255;

/// The VMs of an app, and the address that stands for them.
pub struct Fleet {
    /// The app's name.
    pub name: String,
    /// The app's number.
    pub number: u32,
    /// The number of this host.
    host: u16,
    /// `APP.internal`, until it is closed.
    service: Mutex<Option<Service>>,
    machines: Mutex<Vec<Arc<Machine>>>,
    /// Those of other hosts.
    elsewhere: Mutex<Vec<Elsewhere>>,
    mesh: Option<Arc<Mesh>>,
    network: Network,
    turn: AtomicUsize,
}

/// A VM of the app at another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The number of its host.
    pub host: u16,
    /// Its number in its app.
    pub vm: u32,
    /// Its address in the private network.
    pub address: MachineAddress,
    /// Whether it may have new connections.
    pub takes: bool,
    /// Whether it need not be woken first.
    pub is_awake: bool,
}

/// A VM that takes traffic.
pub enum Way {
    /// One of this host.
    Here(Arc<Machine>),
    /// One of another host.
    There(Elsewhere),
}

impl Way {
    /// The VM, if it is one of another host.
    #[must_use]
    pub fn there(self) -> Option<Elsewhere> {
        match self {
            Self::Here(_) => None,
            Self::There(there) => Some(there),
        }
    }
}

impl Fleet {
    /// A fleet without VMs, whose address is known at once.
    ///
    /// # Errors
    /// The network has no room for it.
    pub fn new(network: &Network, host: u16, mesh: Option<Arc<Mesh>>, row: &AppRow) -> Result<Arc<Self>> {
        let known = Arc::new(OnceLock::<Weak<Self>>::new());
        let asked = Arc::clone(&known);
        let config = ServiceConfig::new().name(&row.name).on_demand(move |demand| {
            let gone = || vmcell::Error::new(vmcell::ErrorKind::InvalidState, "no VM of the app takes traffic");
            let fleet = asked.get().and_then(Weak::upgrade);
            fleet.filter(|fleet| fleet.wake(demand.member()) || fleet.wake_elsewhere()).map(drop).ok_or_else(gone)
        });
        let service = network.service(network.subnet().service(row.number), config)?;
        let service = Mutex::new(Some(service));
        let fleet = Arc::new(Self {
            name: row.name.clone(),
            number: row.number,
            host,
            service,
            machines: Mutex::default(),
            elsewhere: Mutex::default(),
            mesh,
            network: network.clone(),
            turn: AtomicUsize::new(0),
        });
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

    /// Has a VM woken at a host where one sleeps. It takes connections here once that host says that it is awake.
    fn wake_elsewhere(&self) -> bool {
        let sleeping = self.elsewhere().into_iter().find(|vm| vm.takes && !vm.is_awake);
        let (Some(mesh), Some(vm)) = (&self.mesh, sleeping) else { return false };
        let wake = Request::Wake { app: self.name.clone() };
        mesh.peer(vm.host).and_then(|peer| mesh.link.ask(&peer, wake, WAKE)).is_ok()
    }

    /// The VMs at other hosts.
    #[must_use]
    pub fn elsewhere(&self) -> Vec<Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has these be all VMs at other hosts that are alive: those that are awake get traffic, and those that are gone lose what they had.
    pub(super) fn set_elsewhere(&self, now: Vec<Elsewhere>) {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(service) = self.service() else { return };
        for vm in &now {
            if vm.takes && vm.is_awake {
                // If it is one already, that is what is wanted.
                let _ = service.add_remote(vm.address);
            } else if vm.is_awake {
                service.drain(vm.address);
            }
        }
        let stays = |address| now.iter().any(|vm| vm.address == address && vm.is_awake);
        for gone in elsewhere.iter().filter(|vm| !stays(vm.address)) {
            service.remove(gone.address);
        }
        *elsewhere = now;
    }

    /// How long other hosts may take to see that a VM takes no new connections.
    #[must_use]
    pub fn settle(&self) -> Duration {
        if self.mesh.as_ref().is_some_and(|mesh| !mesh.others().is_empty()) { SETTLE } else { Duration::ZERO }
    }

    /// Whether a VM has nothing to do, for other hosts' clients too, whose flows are not counted here.
    #[must_use]
    pub fn is_quiet(&self, machine: &Machine) -> bool {
        let is_still = || self.network.idle(machine.plan.address).is_none_or(|idle| idle > STILL);
        machine.busy() == 0 && (self.settle().is_zero() || is_still())
    }

    /// The VMs that take traffic, at all hosts, another one first each time.
    #[must_use]
    pub fn ways(&self) -> Vec<Way> {
        let here = self.machines().into_iter().filter(|machine| machine.takes_traffic()).map(Way::Here);
        let there = self.elsewhere().into_iter().filter(|vm| vm.takes).map(Way::There);
        let mut ways: Vec<Way> = here.chain(there).collect();
        if let Some(first) = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(ways.len()) {
            ways.rotate_left(first);
        }
        ways
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
        Ok((slot, self.address(network, self.host, slot)?))
    }

    /// The address of a VM at a host.
    ///
    /// # Errors
    /// There is no such VM.
    pub(super) fn address(&self, network: &Network, host: u16, slot: u32) -> Result<MachineAddress> {
        if !(1..=SLOTS).contains(&slot) {
            return Err(Fault::new(format!("VM {slot}; allowed are 1 to {SLOTS}")));
        }
        Ok(network.subnet().machine(host, (self.number << 8) | slot)?)
    }

    /// The VM with this number.
    ///
    /// # Errors
    /// There is none.
    pub fn machine(&self, app: &str, vm: u32) -> Result<Arc<Machine>> {
        let found = self.machines().into_iter().find(|machine| machine.plan.slot == vm);
        found
            .ok_or_else(|| Fault::new(format!("{app} has no VM {vm}")).next(format!("`cell status {app}` lists them.")))
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
            Fault::new(format!("no VM of {app} at this host takes connections"))
                .next(format!("`cell status {app}` says why; `cell logs {app}` what they said."))
        })
    }
}

/// The prefix that the addresses of all VMs are in that a host has of the app with this number.
///
/// # Errors
/// None: the numbers are in bounds.
pub(super) fn prefix(network: &Network, host: u16, number: u32) -> Result<Prefix> {
    let first = network.subnet().machine(host, (number << 8) | 1)?.ip();
    // The last 8 bits are the VM's number.
    Ok(Prefix::new((first.to_bits() & !0xff).into(), 120)?)
}
