//! What hosts tell each other all the time: the hosts of the mesh, and what runs.

use serde::{Deserialize, Serialize};

use crate::app::{MOST_HOSTS, MOST_SERVICES, is_name};
use crate::fault::{Fault, Result};
use crate::machine::{Machine, Phase, Report};
use crate::state::{MOST_APPS, Roster};

/// A host tells of no more apps.
const MOST_TOLD: usize = 1024;
/// A service has no more public names, and lets no more apps in.
const MOST_NAMES: usize = 1024;
/// An app has no more VMs at one host: those of two releases, as long as one takes the other's place.
const MOST_VMS: usize = 255;

/// What a host says to one that it asks.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The hosts, as it knows them.
    pub roster: Roster,
}

/// What it is told.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// The hosts, as the other one knows them.
    pub roster: Option<Roster>,
    /// The apps that it has, of its own and of others.
    pub apps: Vec<AppTold>,
}

/// An app, as a host tells of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppTold {
    /// Its name.
    pub name: String,
    /// Its number, which says which host it belongs to.
    pub number: u32,
    /// Its active release.
    pub release: Option<u32>,
    /// The numbers of the hosts that may have VMs of it.
    pub hosts: Vec<u16>,
    /// What it offers.
    pub services: Vec<ServiceTold>,
    /// Its VMs at the host that tells.
    pub vms: Vec<VmTold>,
}

/// A port that an app offers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTold {
    /// The TCP port.
    pub port: u16,
    /// Its public names.
    pub names: Vec<String>,
    /// The apps that may connect to it.
    pub allow: Vec<String>,
}

/// A VM, as its host tells of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct VmTold {
    /// What has become of it.
    #[serde(flatten)]
    pub report: Report,
    /// Whether it may have new connections.
    pub takes: bool,
}

impl Beat {
    /// Refuses what no host tells.
    ///
    /// # Errors
    /// What is too much of, or no name.
    pub fn check(&self) -> Result<()> {
        let refused = |what: &str| Err(Fault::new(format!("another host tells of {what}")));
        if self.apps.len() > MOST_TOLD {
            return refused("too many apps");
        }
        for app in &self.apps {
            if !is_name(&app.name) || !(1..=MOST_APPS).contains(&app.number) {
                return refused("an app that is none");
            }
            if app.services.len() > MOST_SERVICES || app.vms.len() > MOST_VMS || app.hosts.len() > MOST_HOSTS {
                return refused("too many services, VMs or hosts of an app");
            }
            if app.services.iter().any(|service| service.names.len() > MOST_NAMES || service.allow.len() > MOST_NAMES) {
                return refused("too many names of a service");
            }
        }
        Ok(())
    }

    /// Whether it says the same but for how long things have been so.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.timeless() == other.timeless()
    }

    fn timeless(&self) -> Self {
        let mut beat = self.clone();
        beat.apps.iter_mut().flat_map(|app| &mut app.vms).for_each(|vm| vm.report.seconds = 0);
        beat
    }
}

impl VmTold {
    /// As it is now.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        Self { report: machine.report(), takes: machine.takes_traffic() }
    }

    /// Whether it runs, and need not be woken first.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.report.phase != Phase::Suspended
    }
}
