//! Makes a host that has nothing yet one of a mesh.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::folder::Folder;
use super::mesh::identity;
use super::secrets::Secrets;
use super::token::Token;
use crate::fault::{Context, Fault, Result};
use crate::lines::Hidden;
use crate::link::{Link, Request};
use crate::state::{Roster, State};

/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Welcome {
    number: u16,
    realm: [u8; 3],
    roster: Roster,
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The number of this host.
    pub number: u16,
    /// The names of all hosts.
    pub hosts: Vec<String>,
}

/// Joins the mesh of the host that has made the token, under this name; other hosts find this one at `endpoint`.
///
/// # Errors
/// The folder is in use, has apps or laptops, or is in a mesh already; the other host does not answer or refuses.
pub fn join(folder: &Folder, token: &str, name: &str, endpoint: SocketAddr) -> Result<Joined> {
    let token: Token = token.parse()?;
    let state = State::open(folder.path())?;
    let secrets = Secrets::open(&folder.secrets())?;
    is_empty(&state)?;
    let (identity, key) = identity(&secrets)?;
    let certificate = identity.digest()?;
    let link = Link::new(identity)?;
    let tunnel = key.public_key().to_string();
    let request = Request::Join { secret: Hidden(token.secret), name: name.to_owned(), endpoint, tunnel };
    let answer = link.ask(&token.peer, request, ANSWER)?;
    let Welcome { number, realm: [first, second, third], roster } =
        serde_json::from_value(answer).context("the answer of the host that invites")?;
    roster.check()?;
    let is_own = |of: u16, certificate: &str| roster.numbered(of).is_some_and(|one| one.certificate == certificate);
    if !is_own(number, &certificate) || roster.hosts.iter().all(|member| member.certificate != token.peer.certificate) {
        return Err(Fault::new("the hosts that were answered are not this one and the one that invites"));
    }
    state.join(u32::from_be_bytes([0, first, second, third]), number, &roster)?;
    Ok(Joined { number, hosts: roster.hosts.into_iter().map(|member| member.name).collect() })
}

/// What was made with other addresses cannot be taken along.
fn is_empty(state: &State) -> Result<()> {
    let next = "Join with a folder that is new: `cell --state DIR join TOKEN --mesh ADDRESS:PORT`.";
    if state.roster()?.is_some_and(|roster| roster.hosts.len() > 1) {
        return Err(Fault::new("this host is in a mesh already").next(next));
    }
    if let Some(app) = state.apps()?.first() {
        return Err(
            Fault::new(format!("this host has apps, such as {}, whose addresses would change", app.name)).next(next)
        );
    }
    if !state.laptops()?.is_empty() {
        return Err(Fault::new("this host has laptops, whose addresses would change").next(next));
    }
    Ok(())
}
