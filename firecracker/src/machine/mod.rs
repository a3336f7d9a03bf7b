//! The one machine: what it is to be, and, once it was started, what it does.

mod balloon;
mod build;
mod disks;
mod limits;
mod memory;
mod metadata;
mod metrics;
mod nics;
mod plan;
mod run;
mod same;
mod serve;
mod setup;
mod snapshot;
mod state;

pub use setup::Setup;
pub use snapshot::{FORMAT as SNAPSHOT_FORMAT, version_of as snapshot_version_of};
pub use state::Machine;
