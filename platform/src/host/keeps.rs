//! What is kept for the VMs of a release outside of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::secrets::Secrets;
use crate::fault::Result;
use crate::machine::guest::Kept;
use crate::state::{Release, State};

/// Secrets and volumes of a release.
pub struct Keeps {
    pub state: Arc<State>,
    pub secrets: Arc<Secrets>,
    pub release: Arc<Release>,
}

impl Kept for Keeps {
    fn secrets(&self) -> Result<BTreeMap<String, String>> {
        self.secrets.values(&self.release.app, &self.release.spec.secrets)
    }

    fn is_new(&self, volume: &str) -> Result<bool> {
        Ok(self.state.volume(&self.release.app, volume)?.is_some_and(|row| row.is_new))
    }

    fn used(&self) -> Result<()> {
        self.release.spec.volumes.iter().try_for_each(|mount| self.state.volume_used(&self.release.app, &mount.name))
    }
}
