//! All apps, and who changes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmcell::network::Network;

use super::fleet::Fleet;
use super::folder::Folder;
use super::incoming::Incoming;
use super::laptops::Laptops;
use super::mesh::Mesh;
use super::names::Front;
use super::secrets::Secrets;
use super::volumes::Volumes;
use crate::fault::{Fault, Result};
use crate::machine::Journal;
use crate::machine::guest::Launcher;
use crate::state::{AppRow, Built, State};

/// Makes a root file system of what the first path is in the second one, and says which name the file is to have.
pub type Build = dyn Fn(&Path, &Path) -> Result<Built> + Send + Sync;

/// What a host is made of.
pub struct Parts {
    /// Its folder.
    pub folder: Folder,
    /// What it remembers.
    pub state: Arc<State>,
    /// Its secrets, and the keys of its volumes.
    pub secrets: Arc<Secrets>,
    /// Its private network.
    pub network: Network,
    /// The way in for laptops, if there is one.
    pub laptops: Option<Laptops>,
    /// The other hosts, if it is in a mesh.
    pub mesh: Option<Arc<Mesh>>,
    /// Makes its VMs.
    pub launcher: Arc<dyn Launcher>,
    /// Makes images.
    pub build: Box<Build>,
    /// The kernel of apps that name none.
    pub kernel: Option<PathBuf>,
}

/// By app and host.
pub(super) type Wrongs = BTreeMap<(String, u16), Wrong>;

/// What does not fit between this host and another.
pub(super) struct Wrong {
    /// The release that it is about.
    pub release: Option<u32>,
    /// Since when, or when it was tried to mend it last.
    pub since: Instant,
    /// After so long, it is tried.
    pub wait: Duration,
    /// Why that failed last.
    pub why: Option<String>,
}

/// The apps of a host.
pub struct Host {
    /// What it is made of.
    pub parts: Parts,
    /// What has become of its VMs of late.
    pub journal: Arc<Journal>,
    fleets: Mutex<BTreeMap<String, Arc<Fleet>>>,
    busy: Mutex<BTreeMap<String, Busy>>,
    freed: Condvar,
    images: Mutex<()>,
    active: Mutex<()>,
    following: Mutex<()>,
    wrong: Mutex<Wrongs>,
    pub(super) front: Front,
    pub(super) incoming: Incoming,
    /// Of volumes, by app, name and what is done to them.
    troubles: Mutex<BTreeMap<(String, String, &'static str), String>>,
}

/// For how long an app is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// By a command, which may take minutes.
    Command,
    /// By the clock, for moments: commands wait.
    Clock,
}

impl Host {
    /// A host on which nothing runs yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            journal: Arc::default(),
            fleets: Mutex::default(),
            busy: Mutex::default(),
            freed: Condvar::new(),
            images: Mutex::default(),
            active: Mutex::default(),
            following: Mutex::default(),
            wrong: Mutex::default(),
            front: Front::default(),
            incoming: Incoming::default(),
            troubles: Mutex::default(),
        }
    }

    /// The number of this host.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.parts.mesh.as_ref().map_or(1, |mesh| mesh.own)
    }

    fn fleets(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Fleet>>> {
        self.fleets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the images as they are: none comes that no release has, and none is removed.
    pub(super) fn images(&self) -> MutexGuard<'_, ()> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is active as it is, together with the rules and names that follow from it.
    pub(super) fn active(&self) -> MutexGuard<'_, ()> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What does not fit between this host and another.
    pub(super) fn wrong(&self) -> MutexGuard<'_, Wrongs> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps others from following what other hosts tell.
    pub(super) fn following(&self) -> MutexGuard<'_, ()> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VMs of an app, which nobody else changes: it is occupied, or the host begins. Its address is taken from now on.
    ///
    /// # Errors
    /// The network has no room for another app.
    pub(super) fn fleet(&self, row: &AppRow) -> Result<Arc<Fleet>> {
        let mut fleets = self.fleets();
        if let Some(fleet) = fleets.get(&row.name).filter(|fleet| fleet.number == row.number) {
            return Ok(Arc::clone(fleet));
        }
        // One of the same name was another host's, and is there no longer.
        fleets.remove(&row.name).iter().for_each(|gone| gone.close());
        let fleet = Fleet::new(&self.parts.network, self.number(), self.parts.mesh.clone(), row)?;
        fleets.insert(row.name.clone(), Arc::clone(&fleet));
        Ok(fleet)
    }

    /// The VMs of an app that is there.
    ///
    /// # Errors
    /// There is no such app, or it never had VMs in the life of this process.
    pub fn fleet_of(&self, app: &str) -> Result<Arc<Fleet>> {
        self.parts.state.app(app)?;
        self.fleet_named(app).ok_or_else(|| {
            let next = format!("`cell releases {app}` says what has become of its deploys.");
            Fault::new(format!("nothing of {app} runs")).next(next)
        })
    }

    /// The VMs of an app, if it had any in the life of this process.
    #[must_use]
    pub fn fleet_named(&self, app: &str) -> Option<Arc<Fleet>> {
        self.fleets().get(app).map(Arc::clone)
    }

    /// The VMs of all apps that had any in the life of this process, by the names of the apps.
    #[must_use]
    pub fn fleets_by_name(&self) -> Vec<(String, Arc<Fleet>)> {
        self.fleets().iter().map(|(app, fleet)| (app.clone(), Arc::clone(fleet))).collect()
    }

    /// The VMs of all apps that had any.
    pub(super) fn all_fleets(&self) -> Vec<Arc<Fleet>> {
        self.fleets().values().map(Arc::clone).collect()
    }

    /// Forgets an app without VMs, and gives its address back.
    pub(super) fn forget(&self, app: &str) {
        if let Some(fleet) = self.fleets().remove(app) {
            fleet.close();
        }
    }

    /// The volumes of all apps.
    #[must_use]
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes { state: &self.parts.state, secrets: &self.parts.secrets, folder: self.parts.folder.volumes() }
    }

    /// Keeps an app from other changes, until what is returned is dropped.
    ///
    /// # Errors
    /// It is being changed, and `wait` is not set.
    pub fn occupy(self: &Arc<Self>, app: &str, wait: bool) -> Result<Occupied> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(by) = busy.get(app) {
            if !wait && *by == Busy::Command {
                let next = format!(
                    "Try again when it is done, which `cell releases {app}` shows of a deploy; `cell deploy --wait` waits for it, and `cell cancel {app}` ends a deploy."
                );
                return Err(Fault::new(format!("the app {app} is being changed by another command")).next(next));
            }
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(app.to_owned(), Busy::Command);
        Ok(Occupied { host: Arc::clone(self), app: app.to_owned() })
    }

    /// Keeps an app from other changes for a moment, by the clock; none if it is being changed.
    pub(super) fn occupy_for_a_moment(self: &Arc<Self>, app: &str) -> Option<Occupied> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.contains_key(app) {
            return None;
        }
        busy.insert(app.to_owned(), Busy::Clock);
        Some(Occupied { host: Arc::clone(self), app: app.to_owned() })
    }

    /// Why what the clock does to a volume does not work, if it does not.
    #[must_use]
    pub fn trouble(&self, app: &str, volume: &str) -> Option<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = troubles.iter().filter(|((of, name, _), _)| of == app && name == volume);
        let why: Vec<&str> = of_it.map(|(_, why)| why.as_str()).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }

    pub(super) fn set_trouble(&self, app: &str, volume: &str, what: &'static str, why: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let volume = (app.to_owned(), volume.to_owned(), what);
        match why {
            Some(why) => troubles.insert(volume, why),
            None => troubles.remove(&volume),
        };
    }
}

/// An app that is being changed.
pub struct Occupied {
    host: Arc<Host>,
    app: String,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.host.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.app);
        self.host.freed.notify_all();
    }
}
