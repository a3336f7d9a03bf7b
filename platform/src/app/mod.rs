//! `app.toml`: what an app is, as its owner writes it.

mod check;
mod place;
mod raw;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use check::{MOST_HOSTS, MOST_SERVICES, MOST_VMS, check_told, is_name, is_variable, parse_bytes};
pub use place::parse;

#[cfg(test)]
mod app_test;

/// An app, checked. Paths are absolute.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct App {
    /// 1 to 40 lower-case letters, digits and hyphens; also its name in `.internal`.
    pub name: String,
    /// A folder, a tar or an OCI archive.
    pub image: PathBuf,
    /// The kernel, if it is not the host's usual one.
    pub kernel: Option<PathBuf>,
    /// What is run instead of the image's command, if it is not empty.
    pub command: Vec<String>,
    /// The environment, beside the image's.
    pub env: BTreeMap<String, String>,
    /// Names of the secrets that are put into the environment.
    pub secrets: Vec<String>,
    /// 1 to 64.
    pub vcpus: u32,
    /// 64 MiB to 1 TiB.
    pub memory_mib: u64,
    /// How many VMs run, if the app says so.
    pub count: Option<u32>,
    /// How many run at which host, if the app says so.
    #[serde(default)]
    pub hosts: Option<BTreeMap<String, u32>>,
    /// How long the command may take to end when it is told to.
    pub stop_grace: Duration,
    /// What the app offers.
    pub services: Vec<Service>,
    /// Its encrypted disks.
    pub volumes: Vec<Mount>,
    /// After so long without a connection, a VM is suspended; never if there is none.
    pub idle: Option<Duration>,
}

/// A port that an app offers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The TCP port in the VM.
    pub port: u16,
    /// The host names that the public reaches it by. None: it is private.
    pub names: Vec<String>,
    /// The other apps that may connect to it in the private network.
    pub allow: Vec<String>,
    /// How it is known that it works.
    pub check: Check,
}

/// How it is known that a service works.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The path of a GET that has to be answered with a status of 200 to 399. None: a connection is enough.
    pub path: Option<String>,
    /// The time between two checks.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// How long a new VM may take until a check passes.
    pub grace: Duration,
}

/// A volume, and where it is mounted.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// As the app's name.
    pub name: String,
    /// An absolute path in the VM.
    pub path: String,
    /// How large it is made when it is not there yet, in bytes.
    pub size: u64,
    /// When snapshots are taken of it, if that is not left to people.
    #[serde(default)]
    pub snapshots: Option<Snapshots>,
    /// The host that has a copy of it.
    #[serde(default)]
    pub replicate: Option<Replicate>,
    /// The app whose volume of the same name it is a copy of, which comes from another host: what is written to it is gone when more has come.
    #[serde(default)]
    pub replica_of: Option<String>,
}

/// A copy of a volume at another host.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Replicate {
    /// The host's name.
    pub to: String,
    /// The time after which what has changed is sent.
    pub every: Duration,
}

/// Snapshots that are taken by the clock.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Snapshots {
    /// The time between two.
    pub every: Duration,
    /// How long each is kept.
    pub keep: Duration,
}

impl App {
    /// How long a new VM may take until all checks pass: the longest of its services, or a minute.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.services.iter().map(|service| service.check.grace).max().unwrap_or(Duration::from_secs(60))
    }
}
