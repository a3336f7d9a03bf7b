//! The edge, which serves the public names of the apps.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::apps::Host;
use super::fleet::{Elsewhere, Way};
use crate::app::App;
use crate::edge::{Again, Backend, CertificateStatus, Edge, EdgeSettings, Refusal, Routes, Say};
use crate::fault::{Fault, Result};
use crate::link::Request;
use crate::machine::Machine;

/// How long a guest may take to answer a connection.
const GUEST: Duration = Duration::from_secs(20);
/// So many VMs are tried for a request.
const TRIED: usize = 3;

impl Host {
    /// Starts the edge, which serves the names that apps have from now on. It ends with the host.
    ///
    /// # Errors
    /// Those of [`Edge::start`].
    pub fn start_edge(self: &Arc<Self>, settings: EdgeSettings, say: Say) -> Result<()> {
        let edge = Edge::start(settings, Arc::new(ToApps(Arc::downgrade(self))), say)?;
        self.front.serve(edge);
        Ok(())
    }

    /// Refuses an app with a name that another app serves.
    ///
    /// # Errors
    /// There is such a name.
    pub(super) fn check_names(&self, spec: &App) -> Result<()> {
        let names = self.front.names();
        for name in spec.services.iter().flat_map(|service| &service.names) {
            if let Some((app, _)) = names.get(name).filter(|(app, _)| *app != spec.name) {
                return Err(Fault::new(format!("the app {app} serves {name} already"))
                    .next(format!("Take the name out of {app} first, and deploy that.")));
            }
        }
        Ok(())
    }

    /// What is known of the certificates of an app.
    #[must_use]
    pub fn certificates(&self, app: &str) -> Vec<CertificateStatus> {
        let mut known = self.front.certificates();
        let names = self.front.names();
        known.retain(|status| names.get(&status.name).is_some_and(|(of, _)| of == app));
        known
    }
}

/// The ways to the apps of a host.
pub(super) struct ToApps(pub(super) Weak<Host>);

impl ToApps {
    /// Connects to the port of a VM, here or at another host.
    fn connect_by(&self, host: &Host, name: &str, (app, port): (&str, u16), way: Way) -> Result<Backend> {
        match way {
            Way::Here(machine) => {
                // From here on, it is neither idle nor free to go.
                let kept = Box::new(machine.count());
                let stream = machine.forward(port, GUEST)?;
                Ok(Backend { stream, kept, again: Some(self.again(name, (app.to_owned(), port), &machine)) })
            }
            Way::There(Elsewhere { host: number, vm, .. }) => {
                let mesh = host.mesh()?;
                let request = Request::Connect { app: app.to_owned(), vm, port };
                let stream = mesh.link.stream(&mesh.peer(number)?, request, GUEST.saturating_add(GUEST))?;
                // Whether the VM there takes another request is known there alone.
                Ok(Backend { stream, kept: Box::new(()), again: None })
            }
        }
    }

    /// A connection has another request as long as its name leads there and the VM takes traffic.
    fn again(&self, name: &str, way: (String, u16), machine: &Arc<Machine>) -> Again {
        let (host, name, machine) = (Weak::clone(&self.0), name.to_owned(), Arc::downgrade(machine));
        Box::new(move || {
            let is_so = host.upgrade()?.front.names().get(&name) == Some(&way);
            let counted = machine.upgrade().filter(|_| is_so)?.count_again()?;
            Some(Box::new(counted))
        })
    }
}

impl Routes for ToApps {
    fn connect(&self, name: &str) -> std::result::Result<Backend, Refusal> {
        let host = self.0.upgrade().ok_or(Refusal::Unknown)?;
        let (app, port) = host.front.names().get(name).cloned().ok_or(Refusal::Unknown)?;
        let fleet = host.fleet_named(&app).ok_or(Refusal::Unknown)?;
        let mut why = format!("no VM of {app} takes connections");
        for way in fleet.ways().into_iter().take(TRIED) {
            match self.connect_by(&host, name, (&app, port), way) {
                Ok(backend) => return Ok(backend),
                Err(fault) => why = fault.message,
            }
        }
        Err(Refusal::NoBackend(why))
    }

    fn owner(&self, name: &str) -> String {
        let owner = self.0.upgrade().and_then(|host| host.front.names().get(name).map(|(app, _)| app.clone()));
        owner.unwrap_or_else(|| name.to_owned())
    }

    fn names(&self) -> Vec<String> {
        self.0.upgrade().map(|host| host.front.names().keys().cloned().collect()).unwrap_or_default()
    }
}
