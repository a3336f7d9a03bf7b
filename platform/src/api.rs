//! What `cell` and `cell serve` tell each other, over the Unix socket `cell.sock` in the state's folder.
//!
//! A connection is one request: a line of JSON. The answers are lines of JSON; [`Answer::Done`] or [`Answer::Refused`] is the last one. After
//! [`Answer::Stream`], both sides send bytes as they are: those of the guest's exec port, or of a TCP connection.

use std::io::BufRead;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::{Fault, Result};
use crate::lines;

pub use crate::lines::{Hidden, send};

/// The longest line, in bytes.
pub const MOST_LINE: u64 = 1 << 20;
/// The socket's name in the folder.
pub const SOCKET: &str = "cell.sock";

/// What is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum Request {
    /// Deploys an app; progress is told.
    Deploy {
        /// The text of `app.toml`.
        text: String,
        /// Its name, for errors.
        file: String,
        /// The folder that relative paths count from.
        folder: PathBuf,
        /// Wait for another deploy of the app, instead of being refused.
        wait: bool,
        /// Hosts that are left out.
        #[serde(default)]
        without: Vec<String>,
    },
    /// Tells what runs.
    Status {
        /// One app, or all.
        app: Option<String>,
    },
    /// Tells what the VMs of an app have said.
    Logs {
        /// The app.
        app: String,
        /// Go on when all has been told.
        follow: bool,
    },
    /// Opens the exec port of a VM.
    Exec {
        /// The app.
        app: String,
        /// The VM; any if there is none.
        vm: Option<u32>,
        /// The name of its host; any if there is none.
        #[serde(default)]
        host: Option<String>,
    },
    /// Connects to a port of an app.
    Connect {
        /// The app.
        app: String,
        /// The TCP port in the VM.
        port: u16,
    },
    /// Sets how many VMs run.
    Scale {
        /// The app.
        app: String,
        /// How many.
        count: u32,
    },
    /// Replaces all VMs by new ones of the same release.
    Restart {
        /// The app.
        app: String,
        /// Hosts that are left out.
        #[serde(default)]
        without: Vec<String>,
    },
    /// Ends a deploy that is under way.
    Cancel {
        /// The app.
        app: String,
    },
    /// Ends an app and forgets it.
    Destroy {
        /// The app.
        app: String,
    },
    /// Tells the releases of an app.
    Releases {
        /// The app.
        app: String,
    },
    /// Sets a secret of an app that may be there or not.
    SetSecret {
        /// The app.
        app: String,
        /// Its name.
        name: String,
        /// Its value.
        value: Hidden,
        /// Leaves what runs as it is until the next deploy.
        stage: bool,
        /// Hosts that are left out.
        #[serde(default)]
        without: Vec<String>,
    },
    /// Takes a secret out.
    UnsetSecret {
        /// The app.
        app: String,
        /// Its name.
        name: String,
    },
    /// Tells names and digests of secrets.
    Secrets {
        /// The app.
        app: String,
    },
    /// Lets a laptop in.
    AddLaptop {
        /// Its name.
        name: String,
    },
    /// Lets it in no longer.
    RemoveLaptop {
        /// Its name.
        name: String,
    },
    /// Tells the laptops.
    Laptops,
    /// Invites a host.
    Invite,
    /// Tells the hosts.
    Hosts,
    /// Takes a host out.
    RemoveHost {
        /// Its name.
        name: String,
    },
    /// Tells volumes and their snapshots.
    Volumes {
        /// The app.
        app: String,
    },
    /// Takes a snapshot.
    Snapshot {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
    },
    /// Makes a copy the volume.
    Promote {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
    },
    /// Destroys a volume that no app uses.
    DestroyVolume {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
    },
    /// Removes a snapshot.
    RemoveSnapshot {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
        /// The snapshot's number.
        snapshot: u32,
    },
    /// Makes a volume begin as a snapshot.
    Restore {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
        /// The snapshot's number.
        snapshot: u32,
    },
    /// Makes another volume that begins as a snapshot.
    Fork {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
        /// The snapshot's number.
        snapshot: u32,
        /// The app that gets it.
        to_app: String,
        /// The new volume.
        to_volume: String,
    },
    /// Makes a volume larger.
    Extend {
        /// The app.
        app: String,
        /// The volume.
        volume: String,
        /// Its new size in bytes.
        size: u64,
    },
}

/// What is answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What is being done.
    Progress(String),
    /// A line of a log.
    Log {
        /// The VM's number in its app at its host.
        vm: u32,
        /// Its host, if there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Without control characters.
        line: String,
    },
    /// Bytes follow, as they are.
    Stream,
    /// It is done, with this result.
    Done(Value),
    /// It was refused, or has failed.
    Refused(Fault),
}

/// Reads one line; none if the stream ends before it.
///
/// # Errors
/// Those of the stream; the line is longer than [`MOST_LINE`], or says something else.
pub fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>> {
    lines::receive(from, MOST_LINE)
}
