//! Public names: which service of which app each stands for, and the edge that serves them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::apps::Host;
use crate::app::App;
use crate::edge::{Backend, CertificateStatus, Edge, EdgeSettings, Refusal, Routes, Say};
use crate::fault::{Fault, Result};

/// How long a guest may take to answer a connection.
const GUEST: Duration = Duration::from_secs(20);

/// The public names of a host.
#[derive(Default)]
pub(super) struct Front {
    names: Mutex<Names>,
    edge: OnceLock<Edge>,
}

/// The app that serves a name, and the port of its service.
pub(super) type Names = BTreeMap<String, (String, u16)>;

impl Front {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, names: Names) {
        *self.names() = names;
        if let Some(edge) = self.edge.get() {
            edge.names_changed();
        }
    }
}

impl Host {
    /// Starts the edge, which serves the names that apps have from now on. It ends with the host.
    ///
    /// # Errors
    /// Those of [`Edge::start`].
    pub fn start_edge(self: &Arc<Self>, settings: EdgeSettings, say: Say) -> Result<()> {
        let edge = Edge::start(settings, Arc::new(ToApps(Arc::downgrade(self))), say)?;
        // The first one stays.
        let _ = self.front.edge.set(edge);
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
        let Some(edge) = self.front.edge.get() else { return Vec::new() };
        let mut known = edge.certificates();
        let names = self.front.names();
        known.retain(|status| names.get(&status.name).is_some_and(|(of, _)| of == app));
        known
    }
}

/// The ways to the apps of a host.
pub(super) struct ToApps(pub(super) Weak<Host>);

impl Routes for ToApps {
    fn connect(&self, name: &str) -> std::result::Result<Backend, Refusal> {
        let host = self.0.upgrade().ok_or(Refusal::Unknown)?;
        let (app, port) = host.front.names().get(name).cloned().ok_or(Refusal::Unknown)?;
        let failed = |why: Fault| Refusal::NoBackend(why.message);
        let machine = host.fleet_named(&app).ok_or(Refusal::Unknown)?.pick(&app).map_err(failed)?;
        // From here on, it is neither idle nor free to go.
        let kept = Box::new(machine.count());
        Ok(Backend { stream: machine.forward(port, GUEST).map_err(failed)?, kept })
    }

    fn names(&self) -> Vec<String> {
        self.0.upgrade().map(|host| host.front.names().keys().cloned().collect()).unwrap_or_default()
    }
}
