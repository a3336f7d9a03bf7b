//! Public names: which service of which app each stands for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::edge::{CertificateStatus, Edge};

/// The public names of a host.
#[derive(Default)]
pub(super) struct Front {
    names: Mutex<Names>,
    edge: OnceLock<Edge>,
}

/// The app that serves a name, and the port of its service.
pub(super) type Names = BTreeMap<String, (String, u16)>;

impl Front {
    /// The first edge stays.
    pub(super) fn serve(&self, edge: Edge) {
        let _ = self.edge.set(edge);
    }

    /// What is known of all certificates.
    pub(super) fn certificates(&self) -> Vec<CertificateStatus> {
        self.edge.get().map(Edge::certificates).unwrap_or_default()
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, names: Names) {
        *self.names() = names;
        if let Some(edge) = self.edge.get() {
            edge.names_changed();
        }
    }
}
