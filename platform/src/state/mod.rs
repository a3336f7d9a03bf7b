//! What `cell serve` has to remember, in SQLite: `state.db` in its folder.
//!
//! `database` has the apps and their releases, `volumes` which files their volumes are in, and `laptops` who may come
//! into the network.

mod database;
mod laptops;
mod volumes;

pub use database::{AppRow, Built, MOST_APPS, Release, ReleaseStatus, State};
pub use volumes::{MadeBy, SnapshotRow, VolumeRow};
