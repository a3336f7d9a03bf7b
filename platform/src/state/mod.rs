//! What `cell serve` has to remember, in SQLite: `state.db` in its folder.
//!
//! `database` has the apps and their releases, `volumes` which files their volumes are in, `replicas` what is known of copies, `laptops` who may come
//! into the network, and `hosts` the hosts of the mesh.

mod database;
mod hosts;
#[cfg(test)]
mod hosts_test;
mod laptops;
mod replicas;
mod volumes;

pub(crate) use database::now;
pub use database::{APPS_OF_A_HOST, AppRow, Built, MOST_APPS, Release, ReleaseStatus, State};
pub use hosts::{LARGEST_HOST, Member, Roster, owner_of};
pub use replicas::{ReplicaRow, TargetRow};
pub use volumes::{MadeBy, SnapshotRow, VolumeRow};
