//! The apps of a host: what runs, and how it comes to run.
//!
//! `folder` is where things lie, `fleet` the VMs of an app, `apps` all of them, `rules` those of the network, `roll` puts new VMs in the place of old ones,
//! and `deploy` makes a release of an `app.toml`. `secrets` and `volumes` are what apps keep, and `storage` changes volumes while VMs have them, `discard` removes volumes, and `upkeep` changes them by the clock: `schedule` says
//! when, `tidying` removes files of snapshots that are over, and `replica` has copies at other hosts, of which `incoming` is what comes; `laptops` are
//! those who come into the network from elsewhere, `names` are those by which the internet reaches apps, and `front` is the edge.
//!
//! `mesh` knows the other hosts, `token` and `join` take one in, `beat` is what they tell each other, `peers` tells and asks, and `elsewhere` is
//! what runs there. `reach` is the way to a VM wherever it is. `spread` has others run an app of this host, `placed` runs theirs, in the words of `run`, and `settle` mends what one of them has missed.

mod apps;
mod beat;
mod deploy;
mod discard;
mod elsewhere;
mod fleet;
mod folder;
mod front;
mod incoming;
mod join;
mod keeps;
mod laptops;
mod lifecycle;
mod logs;
mod mesh;
mod names;
mod peers;
mod placed;
mod reach;
mod replica;
mod roll;
mod rules;
mod run;
mod schedule;
mod secrets;
mod settle;
mod spread;
mod storage;
mod tidying;
mod token;
mod upkeep;
mod volumes;

#[cfg(test)]
mod defects_test;
#[cfg(test)]
pub(crate) mod host_test;
#[cfg(test)]
mod killed_test;
#[cfg(test)]
mod lies_test;
#[cfg(test)]
pub(crate) mod mesh_test;
#[cfg(test)]
mod spread_test;
#[cfg(test)]
mod upkeep_test;

pub use apps::{Build, Host, Parts};
pub use deploy::{cancel, deploy, deploy_without, redeploy};
pub use discard::destroy_volume;
pub use fleet::Fleet;
pub use folder::Folder;
pub use join::{Joined, join};
pub use laptops::{Laptops, told as laptops};
pub use lifecycle::{destroy, restart, resume, scale, shut_down};
pub use logs::{Log, Tail, last_lines, shown};
pub use mesh::Mesh;
pub use peers::ToHosts;
pub use reach::{LogTold, Reached, is_over};
pub use replica::{To, promote};
pub use secrets::Secrets;
pub use storage::{extend, fork, remove, restore, snapshot};
pub use upkeep::Upkeep;
pub use volumes::Volumes;
