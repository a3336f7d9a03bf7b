//! What runs at the other hosts of the mesh, and what follows from it here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apps::Host;
use super::beat::{AppTold, ServiceTold, VmTold};
use super::fleet::{Elsewhere, Fleet};
use super::mesh::View;
use crate::app::App;
use crate::fault::{Context, Fault, Result};
use crate::machine::Report;
use crate::state::{AppRow, MOST_APPS, owner_of};

/// So many apps of other hosts are known, in equal shares of each host: half of the addresses that the network has for services. As many are left for the
/// apps of this one.
const MOST_OF_OTHERS: usize = 512;

/// An app of the mesh, whosever it is.
pub(super) struct Known {
    pub name: String,
    pub number: u32,
    pub release: Option<u32>,
    /// The hosts that may have VMs of it.
    pub hosts: Vec<u16>,
    pub services: Vec<ServiceTold>,
}

/// What other hosts tell of apps that are not known, of each host no more than its share. The apps of this host are its own word.
fn told(seen: &BTreeMap<u16, View>, own: u16, known: &[Known]) -> Vec<Known> {
    let mut numbers: BTreeSet<u32> = known.iter().map(|app| app.number).collect();
    let mut names: BTreeSet<String> = known.iter().map(|app| app.name.clone()).collect();
    let share = MOST_OF_OTHERS.checked_div(seen.len()).unwrap_or(MOST_OF_OTHERS);
    let (mut shares, mut found) = (BTreeMap::<u16, usize>::new(), Vec::new());
    // What its owner tells of an app counts before what others do.
    for owners in [true, false] {
        for (host, told) in seen.iter().flat_map(|(host, view)| view.beat().apps.iter().map(|app| (*host, app))) {
            let owner = owner_of(told.number);
            let is_new = owner != own && !numbers.contains(&told.number) && !names.contains(&told.name);
            let taken = shares.entry(host).or_default();
            if is_new && (owner == host) == owners && *taken < share {
                *taken = taken.saturating_add(1);
                numbers.insert(told.number);
                names.insert(told.name.clone());
                let AppTold { name, number, release, hosts, services, .. } = told.clone();
                found.push(Known { name, number, release, hosts, services });
            }
        }
    }
    found
}

impl Host {
    /// The hosts of the mesh by number, this one among them.
    fn numbers(&self) -> Vec<u16> {
        let mesh = self.parts.mesh.as_ref();
        mesh.map_or(vec![1], |mesh| mesh.roster().hosts.iter().map(|member| member.number).collect())
    }

    /// Which hosts an app of this number is to run at, by what its owner has written.
    fn hosts_of(&self, number: u32, spec: Option<&App>) -> Vec<u16> {
        let roster = self.parts.mesh.as_ref().map(|mesh| mesh.roster());
        if let (Some(hosts), Some(roster)) = (spec.and_then(|spec| spec.hosts.as_ref()), roster) {
            let number = |name: &String| roster.named(name).ok().map(|member| member.number);
            return hosts.iter().filter(|(_, count)| **count > 0).filter_map(|(name, _)| number(name)).collect();
        }
        let owner = owner_of(number);
        vec![if self.numbers().contains(&owner) { owner } else { self.number() }]
    }

    fn known_row(&self, row: &AppRow, spec: Option<&App>) -> Known {
        let told = |service: &crate::app::Service| ServiceTold {
            port: service.port,
            names: service.names.clone(),
            allow: service.allow.clone(),
        };
        Known {
            name: row.name.clone(),
            number: row.number,
            release: row.active,
            hosts: self.hosts_of(row.number, spec),
            services: spec.iter().flat_map(|spec| &spec.services).map(told).collect(),
        }
    }

    /// All apps of the mesh, as this host knows them, with this one instead of its active release. Those of its own come first.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn known(&self, instead: Option<&App>) -> Result<Vec<Known>> {
        let state = &self.parts.state;
        let mut rows = state.apps()?;
        if let Some(new) = instead.filter(|new| rows.iter().all(|row| row.name != new.name)) {
            // It has no number yet, and whether there is room does not depend on it.
            rows.push(AppRow { name: new.name.clone(), number: MOST_APPS, count: 0, active: None });
        }
        let mut known = Vec::new();
        for row in &rows {
            let active = row.active.and_then(|_| state.active(&row.name).ok()).map(|release| release.spec);
            let spec = instead.filter(|new| new.name == row.name).or(active.as_ref());
            known.push(self.known_row(row, spec));
        }
        let Some(mesh) = &self.parts.mesh else { return Ok(known) };
        known.extend(told(&mesh.seen(), mesh.own, &known));
        Ok(known)
    }

    /// What other hosts are told of the apps of this one.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn tell_apps(&self) -> Result<Vec<AppTold>> {
        let state = &self.parts.state;
        let tell = |row: &AppRow| {
            // What cannot be read is not told as one that runs nowhere else: others would end it.
            let spec = row.active.map(|_| state.active(&row.name)).transpose()?.map(|release| release.spec);
            let Known { name, number, release, hosts, services } = self.known_row(row, spec.as_ref());
            let machines = self.fleet_named(&name).map(|fleet| fleet.machines()).unwrap_or_default();
            let vm = |machine: &Arc<_>| VmTold::of(machine);
            Ok(AppTold { name, number, release, hosts, services, vms: machines.iter().map(vm).collect() })
        };
        state.apps()?.iter().map(tell).collect()
    }

    /// Something of other hosts is not as it was: their VMs, the rules and the names follow.
    pub(super) fn others_changed(&self) {
        let _alone = self.following();
        // Rules that the network refuses leave those before, and the apps of this host go on.
        let _ = self.set_rules();
        let Ok(known) = self.known(None) else { return };
        for app in &known {
            let row = AppRow { name: app.name.clone(), number: app.number, count: 0, active: None };
            let Ok(fleet) = self.fleet(&row) else { continue };
            fleet.set_elsewhere(self.elsewhere(&fleet, app));
        }
        let is_known = |fleet: &Fleet| known.iter().any(|app| app.number == fleet.number);
        self.all_fleets().iter().filter(|fleet| !is_known(fleet) && fleet.machines().is_empty()).for_each(|fleet| {
            self.forget(&fleet.name);
        });
    }

    /// The VMs of an app at other hosts that are alive.
    fn elsewhere(&self, fleet: &Fleet, app: &Known) -> Vec<Elsewhere> {
        let Some(mesh) = &self.parts.mesh else { return Vec::new() };
        let mut found = Vec::new();
        // Where it runs is its owner's word, and not that of whoever says to have it.
        let may = |host: u16| app.hosts.contains(&host) || owner_of(app.number) == host;
        for (host, view) in mesh.seen().into_iter().filter(|(host, view)| view.is_alive() && may(*host)) {
            let told = view.beat().apps.iter().filter(|told| told.name == app.name && told.number == app.number);
            for vm in told.flat_map(|told| &told.vms) {
                let address = fleet.address(&self.parts.network, host, vm.report.vm);
                found.extend(address.ok().map(|address| Elsewhere {
                    host,
                    vm: vm.report.vm,
                    address,
                    takes: vm.takes,
                    is_awake: vm.is_awake(),
                }));
            }
        }
        found
    }

    /// Refuses an app that is to run at hosts that there are not, or that are dead and not left out.
    ///
    /// # Errors
    /// One of its hosts is none, or is dead; one that is left out is none of them; or its volumes are elsewhere.
    pub(super) fn check_hosts(&self, spec: &App, without: &[String]) -> Result<()> {
        let Some(hosts) = &spec.hosts else {
            let none = |name: &String| Fault::new(format!("--without {name}, and the app names no hosts"));
            return without.first().map_or(Ok(()), |name| Err(none(name)));
        };
        let mesh = self.mesh()?;
        let roster = mesh.roster();
        for name in hosts.keys() {
            let number = roster.named(name)?.number;
            if !mesh.is_alive(number) && !without.contains(name) {
                return Err(Fault::new(format!("the host {name} is dead"))
                    .next(format!("Leave it out by --without {name}; it gets the release when it is back.")));
            }
        }
        if let Some(name) = without.iter().find(|name| !hosts.contains_key(*name)) {
            return Err(Fault::new(format!("--without {name}, and hosts does not name it")));
        }
        let Ok(before) = self.parts.state.active(&spec.name) else { return Ok(()) };
        let number = self.parts.state.app(&spec.name)?.number;
        let (old, new) = (self.hosts_of(number, Some(&before.spec)), self.hosts_of(number, Some(spec)));
        if !before.spec.volumes.is_empty() && !old.is_empty() && !new.is_empty() && old != new {
            return Err(Fault::new(format!("the volumes of {} are at another host, and stay there", spec.name))
                .next("Leave `hosts` as it was, or give the app another name."));
        }
        Ok(())
    }

    /// The VMs of an app at other hosts that are alive, each with the name of its host.
    #[must_use]
    pub fn reports_elsewhere(&self, row: &AppRow) -> Vec<(String, Report)> {
        let Some(mesh) = &self.parts.mesh else { return Vec::new() };
        let (roster, mut reports) = (mesh.roster(), Vec::new());
        for (host, view) in mesh.seen().into_iter().filter(|(_, view)| view.is_alive()) {
            let name = roster.numbered(host).map_or_else(String::new, |member| member.name.clone());
            let told = view.beat().apps.iter().filter(|told| told.name == row.name && told.number == row.number);
            reports.extend(told.flat_map(|told| &told.vms).map(|vm| (name.clone(), vm.report.clone())));
        }
        reports
    }

    /// The name of this host, if it is in a mesh.
    #[must_use]
    pub fn own_name(&self) -> Option<String> {
        let mesh = self.parts.mesh.as_ref()?;
        mesh.roster().numbered(mesh.own).map(|member| member.name.clone())
    }

    /// Refuses to change an app that belongs to another host.
    ///
    /// # Errors
    /// It does.
    pub(super) fn check_owner(&self, app: &str) -> Result<()> {
        let Some(mesh) = &self.parts.mesh else { return Ok(()) };
        let known = self.known(None).context("the apps")?;
        let Some(number) = known.iter().find(|known| known.name == app).map(|known| known.number) else {
            return Ok(());
        };
        let roster = mesh.roster();
        match roster.numbered(owner_of(number)).filter(|owner| owner.number != mesh.own) {
            Some(owner) => Err(Fault::new(format!("the app {app} belongs to the host {}", owner.name))
                .next(format!("Say that at {}, or give this app another name.", owner.name))),
            None => Ok(()),
        }
    }
}
