//! The hosts of the mesh, which of them this one is, and the invitations that are open.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vmcell::network::wireguard::PublicKey;

use super::database::{APPS_OF_A_HOST, State, now};
use crate::app::{MOST_HOSTS, is_name};
use crate::fault::{Context, Fault, Result};

/// The largest number of a host. A number is given once in the life of a mesh.
pub const LARGEST_HOST: u16 = 63;
/// A host that has changed its address more often is not one of ours.
pub(super) const MOST_MOVES: u64 = 1 << 40;
/// What others say of a host's address is not believed if it has moved so often since it was heard of last; what it says itself is.
pub(super) const FAR: u64 = 1024;
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
    /// How often that has changed. The host alone changes it.
    #[serde(default)]
    pub moves: u64,
    /// The digest of the link's certificate, 64 hexadecimal digits.
    pub certificate: String,
    /// The public key of its tunnel.
    pub tunnel: String,
}

/// The hosts of the mesh, as one of them knows them. Two such lists are merged, so that changes on several hosts at the same time all hold.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Roster {
    /// The hosts, by their numbers.
    pub hosts: Vec<Member>,
    /// The numbers of hosts that were taken out. They are never given again, and no host has them, whoever says so.
    #[serde(default)]
    pub gone: BTreeSet<u16>,
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
        let Self { number, name, endpoint, moves, certificate, tunnel } = self;
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
        if *moves > MOST_MOVES {
            return Err(Fault::new(format!("{name} has moved {moves} times; allowed are {MOST_MOVES}")));
        }
        if certificate.len() != 64 || !certificate.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::new(format!("the certificate's digest of {name} is none; allowed are 64 digits")));
        }
        tunnel.parse::<PublicKey>().map(drop).context(format!("the tunnel's key of {name}"))
    }

    /// Whether both cannot be hosts of a mesh. That two are found at one address may be so while they move.
    fn is_same(&self, other: &Self) -> bool {
        let is_same_key = self.certificate == other.certificate || self.tunnel == other.tunnel;
        is_same_key || self.number == other.number || self.name == other.name
    }

    fn has_keys_of(&self, other: &Self) -> bool {
        self.certificate == other.certificate && self.tunnel == other.tunnel && self.name == other.name
    }
}

impl Roster {
    /// A mesh of one host.
    #[must_use]
    pub fn of_one(member: Member) -> Self {
        Self { hosts: vec![member], gone: BTreeSet::new() }
    }

    /// Refuses a list that cannot be one.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self) -> Result<()> {
        if self.hosts.len() > MOST_HOSTS {
            let next = "Remove one that is gone: `cell hosts remove NAME`.";
            return Err(Fault::new(format!("the mesh has {MOST_HOSTS} hosts, and no more are allowed")).next(next));
        }
        if let Some(number) = self.gone.iter().find(|number| !(1..=LARGEST_HOST).contains(*number)) {
            return Err(Fault::new(format!("host number {number}; allowed are 1 to {LARGEST_HOST}")));
        }
        for (place, member) in self.hosts.iter().enumerate() {
            member.check()?;
            let mut before = self.hosts.iter().take(place);
            if before.any(|other| other.is_same(member)) || self.gone.contains(&member.number) {
                return Err(Fault::new(format!("the host {} has a name, number or key of another one", member.name)));
            }
        }
        Ok(())
    }

    /// Takes a host in; returns its number.
    ///
    /// # Errors
    /// It has the name or the address of another one, or there are too many.
    pub fn add(&mut self, member: Member) -> Result<u16> {
        for other in &self.hosts {
            let next = format!("`cell hosts list` lists them; `cell hosts remove {}` removes it.", other.name);
            let is_taken = |what: &str| Fault::new(format!("the mesh has a host with {what} already")).next(&next);
            if other.name == member.name {
                return Err(is_taken(&format!("the name {}", member.name)));
            }
            if other.endpoint == member.endpoint {
                return Err(is_taken(&format!("the address {}", member.endpoint)));
            }
        }
        let is_free = |number: &u16| !self.gone.contains(number) && self.numbered(*number).is_none();
        let none =
            || Fault::new(format!("all numbers of hosts were given: 1 to {LARGEST_HOST}, each to one host for ever"));
        let number = (1..=LARGEST_HOST).find(is_free).ok_or_else(none)?;
        self.hosts.push(Member { number, ..member });
        self.check().map(|()| number)
    }

    /// Takes a host out, for ever.
    pub fn remove(&mut self, number: u16) {
        self.hosts.retain(|member| member.number != number);
        self.gone.insert(number);
    }

    /// What this host, number `own`, knows after another one, number `from`, has told its list: all hosts of both, without those that one of
    /// them has taken out. A host's key stays, and its address is its own word; two hosts of one number, name or key are gone, or one of them.
    #[must_use]
    pub fn merged(&self, theirs: &Self, own: u16, from: u16) -> Self {
        let mut merged = self.clone();
        merged.gone.extend(&theirs.gone);
        for new in &theirs.hosts {
            match merged.hosts.iter_mut().find(|known| known.number == new.number) {
                None => merged.hosts.push(new.clone()),
                Some(known) if !known.has_keys_of(new) => _ = merged.gone.insert(new.number),
                Some(known) if new.moves <= known.moves => {}
                // Somebody else has said where this host is.
                Some(known) if new.number == own && new.moves.saturating_sub(known.moves) <= FAR => {
                    known.moves = new.moves.saturating_add(1).min(MOST_MOVES);
                }
                Some(known)
                    if new.number != own && (new.number == from || new.moves.saturating_sub(known.moves) <= FAR) =>
                {
                    (known.endpoint, known.moves) = (new.endpoint, new.moves);
                }
                Some(_) => {}
            }
        }
        merged.hosts.sort_by_key(|member| member.number);
        let mut kept = Vec::<Member>::new();
        for member in std::mem::take(&mut merged.hosts) {
            let is_too_much = kept.len() >= MOST_HOSTS || kept.iter().any(|other| other.is_same(&member));
            if is_too_much || merged.gone.contains(&member.number) {
                merged.gone.insert(member.number);
            } else {
                kept.push(member);
            }
        }
        Self { hosts: kept, ..merged }
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
