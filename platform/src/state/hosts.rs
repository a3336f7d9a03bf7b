//! The hosts of the mesh, which of them this one is, and the invitations that are open.

use std::net::SocketAddr;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vmcell::network::wireguard::PublicKey;

use super::database::{APPS_OF_A_HOST, State, now};
use crate::app::{MOST_HOSTS, is_name};
use crate::fault::{Context, Fault, Result};

/// The largest number of a host. A number is given once in the life of a mesh.
pub const LARGEST_HOST: u16 = 63;
/// A list of hosts that has changed more often is not one of ours.
const MOST_CHANGES: u64 = 1 << 40;
/// So many invitations are open at a time.
const MOST_INVITES: usize = 64;

/// A host of the mesh.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// 1 to [`LARGEST_HOST`].
    pub number: u16,
    /// As an app's name.
    pub name: String,
    /// Where others find it: UDP for the tunnel, TCP for the link.
    pub endpoint: SocketAddr,
    /// The digest of the link's certificate, 64 hexadecimal digits.
    pub certificate: String,
    /// The public key of its tunnel.
    pub tunnel: String,
}

/// The hosts of the mesh, as all of them know them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// Each change makes it larger.
    pub version: u64,
    /// The number that the next host gets.
    pub next: u16,
    /// The hosts, in the order in which they came.
    pub hosts: Vec<Member>,
}

#[derive(Deserialize, Serialize)]
struct Invite {
    /// The digest of the secret.
    digest: String,
    /// Seconds since 1970.
    ends: u64,
}

impl Member {
    fn check(&self) -> Result<()> {
        let Self { number, name, endpoint, certificate, tunnel } = self;
        if !(1..=LARGEST_HOST).contains(number) {
            return Err(Fault::new(format!("host number {number}; allowed are 1 to {LARGEST_HOST}")));
        }
        if !is_name(name) {
            let allowed = "allowed are 1 to 40 lower-case letters, digits and hyphens inside";
            return Err(Fault::new(format!("{name:?} is no name of a host; {allowed}")));
        }
        if endpoint.port() == 0 || endpoint.ip().is_unspecified() || endpoint.ip().is_multicast() {
            let next = "Say the address by which the other hosts find this one: --mesh ADDRESS:PORT.";
            return Err(Fault::new(format!("{endpoint} is no address of a host")).next(next));
        }
        if certificate.len() != 64 || !certificate.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::new(format!("the certificate's digest of {name} is none; allowed are 64 digits")));
        }
        tunnel.parse::<PublicKey>().map(drop).context(format!("the tunnel's key of {name}"))
    }
}

impl Roster {
    /// A mesh of one host.
    #[must_use]
    pub fn of_one(member: Member) -> Self {
        Self { version: 1, next: member.number.saturating_add(1), hosts: vec![member] }
    }

    /// Refuses a list that cannot be one.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self) -> Result<()> {
        if self.version > MOST_CHANGES {
            return Err(Fault::new(format!(
                "the hosts have changed {} times; allowed are {MOST_CHANGES}",
                self.version
            )));
        }
        if self.hosts.len() > MOST_HOSTS {
            let next = "Remove one that is gone: `cell hosts remove NAME`.";
            return Err(Fault::new(format!("the mesh has {MOST_HOSTS} hosts, and no more are allowed")).next(next));
        }
        for (place, member) in self.hosts.iter().enumerate() {
            member.check()?;
            if member.number >= self.next {
                return Err(Fault::new(format!("host number {} was never given", member.number)));
            }
            for other in self.hosts.iter().take(place) {
                let next = format!("`cell hosts list` lists them; `cell hosts remove {}` removes it.", other.name);
                let is_taken = |what: &str| Fault::new(format!("the mesh has a host with {what} already")).next(&next);
                if other.name == member.name {
                    return Err(is_taken(&format!("the name {}", member.name)));
                }
                if other.endpoint == member.endpoint {
                    return Err(is_taken(&format!("the address {}", member.endpoint)));
                }
                let is_same = other.certificate == member.certificate || other.tunnel == member.tunnel;
                if is_same || other.number == member.number {
                    return Err(is_taken("this number or key"));
                }
            }
        }
        Ok(())
    }

    /// Whether this list takes the place of another one. Of two that were made at the same time on two hosts, all choose the same.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        (self.version, self.text()) > (other.version, other.text())
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The host with this number.
    #[must_use]
    pub fn numbered(&self, number: u16) -> Option<&Member> {
        self.hosts.iter().find(|member| member.number == number)
    }

    /// The host of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<&Member> {
        let found = self.hosts.iter().find(|member| member.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.hosts.iter().map(|member| member.name.as_str()).collect();
            Fault::new(format!("there is no host {name}; the hosts are {}", names.join(", ")))
                .next("`cell hosts list` lists them.")
        })
    }
}

fn put(database: &Connection, name: &str, value: &str) -> Result<()> {
    let put = "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    database.execute(put, params![name, value]).context("state").map(drop)
}

fn get<T: DeserializeOwned>(database: &Connection, name: &str) -> Result<Option<T>> {
    let query = "SELECT value FROM settings WHERE name = ?";
    let found: Option<String> = database.query_row(query, [name], |row| row.get(0)).optional().context("state")?;
    found.map(|text| serde_json::from_str(&text).context(format!("state: {name}"))).transpose()
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).context("state")
}

/// The number of the host that the app with this number belongs to.
#[must_use]
pub fn owner_of(number: u32) -> u16 {
    let owner = number.checked_div(APPS_OF_A_HOST.saturating_add(1)).unwrap_or(0).saturating_add(1);
    u16::try_from(owner).unwrap_or(LARGEST_HOST)
}

impl State {
    /// The number of this host: 1, unless it has joined others.
    ///
    /// # Errors
    /// Those of the database.
    pub fn own_number(&self) -> Result<u16> {
        Ok(get(&self.database(), "host")?.unwrap_or(1))
    }

    /// The hosts of the mesh, if there is one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn roster(&self) -> Result<Option<Roster>> {
        get(&self.database(), "roster")
    }

    /// Writes the hosts of the mesh down.
    ///
    /// # Errors
    /// Those of the database.
    pub fn set_roster(&self, roster: &Roster) -> Result<()> {
        put(&self.database(), "roster", &json(roster)?)
    }

    /// Makes this host one of a mesh, as all of one change: the realm of the network, its number, and the hosts.
    ///
    /// # Errors
    /// Those of the database.
    pub fn join(&self, realm: u32, number: u16, roster: &Roster) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        put(&change, "realm", &realm.to_string())?;
        put(&change, "host", &json(&number)?)?;
        put(&change, "roster", &json(roster)?)?;
        change.commit().context("state")
    }

    /// Opens an invitation for so many seconds.
    ///
    /// # Errors
    /// Too many are open; those of the database.
    pub fn invite(&self, digest: &str, seconds: u64) -> Result<()> {
        let database = self.database();
        let mut open: Vec<Invite> = get(&database, "invites")?.unwrap_or_default();
        open.retain(|invite| invite.ends > now());
        if open.len() >= MOST_INVITES {
            return Err(Fault::new(format!("{MOST_INVITES} invitations are open, and no more are allowed"))
                .next("Each of them ends within an hour."));
        }
        open.push(Invite { digest: digest.to_owned(), ends: now().saturating_add(seconds) });
        put(&database, "invites", &json(&open)?)
    }

    /// Refuses a token that is not good.
    ///
    /// # Errors
    /// It is not known, used or too old; those of the database.
    pub fn check_invite(&self, digest: &str) -> Result<()> {
        others(&self.database(), digest).map(drop)
    }

    /// Takes an invitation, which is used by that, and writes the hosts down that follow from it. Nothing has changed if it is refused.
    ///
    /// # Errors
    /// There is none with a secret of this digest, or its time is over; those of the database.
    pub fn admit(&self, digest: &str, roster: &Roster) -> Result<()> {
        let mut database = self.database();
        let change = database.transaction().context("state")?;
        let open = others(&change, digest)?;
        put(&change, "invites", &json(&open)?)?;
        put(&change, "roster", &json(roster)?)?;
        change.commit().context("state")
    }
}

/// The invitations but that one, which has to be good.
fn others(database: &Connection, digest: &str) -> Result<Vec<Invite>> {
    let mut open: Vec<Invite> = get(database, "invites")?.unwrap_or_default();
    let next = "Ask for a new one: `cell hosts invite`.";
    let found = open.iter().position(|invite| invite.digest == digest).map(|place| open.swap_remove(place));
    let invite = found.ok_or_else(|| Fault::new("the token is not known here, or was used").next(next))?;
    if invite.ends <= now() {
        return Err(Fault::new("the token's time is over; each is good for an hour").next(next));
    }
    Ok(open)
}
