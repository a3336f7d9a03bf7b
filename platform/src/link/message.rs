//! What hosts ask of each other, and what is answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::lines::Hidden;
use crate::state::Release;

/// What is asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum Request {
    /// Takes a host into the mesh: the one thing that a host may ask for that is not known yet.
    Join {
        /// What was in the token.
        secret: Hidden,
        /// The name that the host is to have.
        name: String,
        /// Where it is found.
        endpoint: SocketAddr,
        /// The public key of its tunnel.
        tunnel: String,
    },
    /// Opens a stream on which each line of the asker's is answered by what runs on this host.
    Beat,
    /// Runs a release of an app that belongs to the host that asks. What becomes of it is said on the stream.
    Run {
        /// The app's number.
        number: u32,
        /// The release.
        release: Box<Release>,
        /// How many VMs.
        count: u32,
        /// The values of its secrets.
        secrets: BTreeMap<String, Hidden>,
    },
    /// Sends an image that a release has; its bytes follow.
    Image {
        /// The file's name, which has its digest.
        file: String,
        /// How long it is.
        bytes: u64,
    },
    /// Ends an app that belongs to the host that asks.
    End {
        /// The app.
        app: String,
        /// Its number.
        number: u32,
    },
    /// Wakes a VM of an app that sleeps.
    Wake {
        /// The app.
        app: String,
    },
    /// Opens a stream on which the asker sends a volume of which this host is to have a copy.
    Replicate,
    /// Opens the exec port of a VM.
    Exec {
        /// The app.
        app: String,
        /// The VM's number in its app.
        vm: u32,
    },
    /// Opens a stream on which is told, line by line, what the VMs of an app have said.
    Logs {
        /// The app.
        app: String,
        /// Go on when all has been told.
        follow: bool,
    },
    /// Connects to a port of a VM.
    Connect {
        /// The app.
        app: String,
        /// The VM's number in its app.
        vm: u32,
        /// The TCP port in the VM.
        port: u16,
    },
}

/// What is answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, with this result.
    Done(Value),
    /// Bytes follow, as they are.
    Stream,
    /// It was refused, or has failed.
    Refused(Fault),
}
