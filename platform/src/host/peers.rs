//! This host among the others of its mesh: it answers them, and asks each of them all the time what runs.

use std::io::BufReader;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::apps::Host;
use super::beat::{Ask, Beat};
use super::logs::Tail;
use super::mesh::Mesh;
use super::placed::{self, Wanted};
use super::reach::tell_logs;
use super::replica::{To, receive as take_volume};
use crate::fault::{Context, Fault, Result};
use crate::guest::EXEC_PORT;
use crate::lines::{receive, send};
use crate::link::{Caller, Outcome, Request, Serves};
use crate::state::{Member, owner_of};

/// Between two questions to a host.
const BEAT: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How long whoever asks may say nothing.
const QUIET: Duration = Duration::from_secs(10);
/// Between two attempts to reach a host, and two looks at which there are.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a guest may take to answer a connection.
const GUEST: Duration = Duration::from_secs(20);
/// The longest that is told at a time, in bytes.
const MOST_TOLD: u64 = 4 << 20;

impl Host {
    /// Answers the other hosts of the mesh, and asks them, from now on until the host ends.
    ///
    /// # Errors
    /// There is no thread, or the link cannot be served.
    pub fn start_mesh(self: &Arc<Self>) -> Result<()> {
        let Some(mesh) = self.parts.mesh.clone() else { return Ok(()) };
        if let Some(listener) = mesh.listener() {
            mesh.link.serve(listener, Arc::new(Peers(Arc::downgrade(self))))?;
        }
        let host = Arc::downgrade(self);
        thread::Builder::new().name("mesh".into()).spawn(move || look(&mesh, &host)).context("a thread").map(drop)
    }

    /// Takes a host out of the mesh.
    ///
    /// # Errors
    /// There is none of this name, it is this one, or an app is to run there; those of the database.
    pub fn remove_host(&self, name: &str) -> Result<()> {
        let mesh = self.mesh()?;
        let number = mesh.roster().named(name)?.number;
        for row in self.parts.state.apps()? {
            let spec = self.parts.state.active(&row.name).ok().map(|release| release.spec);
            let is_there = spec.is_some_and(|spec| spec.hosts.is_some_and(|hosts| hosts.contains_key(name)));
            if owner_of(row.number) == mesh.own && number != mesh.own && is_there {
                let next = format!("Take it out of `hosts` of {} first, and deploy that.", row.name);
                return Err(Fault::new(format!("the app {} has VMs at {name}", row.name)).next(next));
            }
        }
        mesh.remove(name)?;
        self.others_changed();
        Ok(())
    }

    /// The mesh.
    ///
    /// # Errors
    /// This host is in none.
    pub fn mesh(&self) -> Result<&Arc<Mesh>> {
        let none = || Fault::new("this host is in no mesh").next("Start `cell serve` with --mesh ADDRESS:PORT.");
        self.parts.mesh.as_ref().ok_or_else(none)
    }
}

/// Has a thread for each other host.
fn look(mesh: &Arc<Mesh>, host: &Weak<Host>) {
    let mut followed = Vec::<(u16, thread::JoinHandle<()>)>::new();
    while host.strong_count() > 0 {
        followed.retain(|(_, thread)| !thread.is_finished());
        for member in mesh.others() {
            if followed.iter().all(|(number, _)| *number != member.number) {
                let (mesh, host, number) = (Arc::clone(mesh), Weak::clone(host), member.number);
                let name = format!("host-{}", member.name);
                let thread = thread::Builder::new().name(name).spawn(move || follow(&mesh, &host, number));
                followed.extend(thread.ok().map(|thread| (number, thread)));
            }
        }
        thread::sleep(AGAIN);
    }
}

/// Asks one host, until it is none any more.
fn follow(mesh: &Mesh, host: &Weak<Host>, number: u16) {
    while host.strong_count() > 0 && mesh.roster().numbered(number).is_some() {
        // Why it ended is seen by what does not come.
        let _ = ask(mesh, host, number);
        hear(host, mesh, number, None);
        thread::sleep(AGAIN);
    }
    hear(host, mesh, number, None);
}

/// Asks until there is no answer.
fn ask(mesh: &Mesh, host: &Weak<Host>, number: u16) -> Result<()> {
    let peer = mesh.peer(number)?;
    let mut stream = mesh.link.stream(&peer, Request::Beat, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER)).context("a host")?;
    stream.set_write_timeout(Some(ANSWER)).context("a host")?;
    let mut answers = BufReader::new(stream.try_clone().context("a host")?);
    while host.strong_count() > 0 && mesh.peer(number)? == peer {
        send(&mut stream, &Ask { roster: mesh.roster().as_ref().clone() })?;
        let Some(beat) = receive::<Beat>(&mut answers, MOST_TOLD)? else { break };
        beat.check()?;
        if mesh.peer(number)? != peer {
            // It was taken out while it answered.
            break;
        }
        if let Some(roster) = &beat.roster {
            mesh.adopt(roster, number)?;
        }
        hear(host, mesh, number, Some(beat));
        thread::sleep(BEAT);
    }
    Ok(())
}

fn hear(host: &Weak<Host>, mesh: &Mesh, number: u16, beat: Option<Beat>) {
    let is_there = beat.is_some();
    let is_new = mesh.heard(number, beat);
    let Some(host) = host.upgrade() else { return };
    if is_new {
        host.others_changed();
    }
    if is_there {
        host.settle_with(number);
    }
}

/// Answers the other hosts. The link has it, and belongs to the host.
struct Peers(Weak<Host>);

impl Peers {
    fn mesh(&self) -> Option<Arc<Mesh>> {
        self.0.upgrade()?.parts.mesh.clone()
    }
}

impl Serves for Peers {
    fn known(&self, certificate: &str) -> Option<u16> {
        self.mesh()?.known(certificate)
    }

    fn is_found_at(&self, address: IpAddr) -> bool {
        self.mesh().is_some_and(|mesh| mesh.is_found_at(address))
    }

    fn answer(&self, caller: &Caller, request: Request) -> Result<Outcome> {
        let host = self.0.upgrade().ok_or_else(|| Fault::new("this host ends"))?;
        let mesh = Arc::clone(host.mesh()?);
        match (request, caller.host) {
            (Request::Join { secret, name, endpoint, tunnel }, _) => {
                let certificate = caller.certificate.clone();
                let new = Member { number: 0, name, endpoint, moves: 0, certificate, tunnel };
                mesh.admit(&secret.0, new).and_then(|number| welcome(&host, &mesh, number)).map(Outcome::Done)
            }
            (_, None) => Err(Fault::new("this host is not in the mesh, or not any more")
                .next("`cell hosts invite` on a host of the mesh prints a token to join by.")),
            (Request::Beat, Some(_)) => {
                let (host, certificate) = (Weak::clone(&self.0), caller.certificate.clone());
                Ok(Outcome::Work(Box::new(move |stream| drop(tell(&mesh, &host, &certificate, &stream)))))
            }
            (Request::Run { number, release, count, secrets }, Some(from)) => {
                let wanted = Wanted { from, number, release: *release, count, secrets };
                Ok(Outcome::Work(Box::new(move |stream| placed::run(&host, wanted, stream))))
            }
            (Request::Image { file, bytes }, Some(from)) => {
                Ok(Outcome::Work(Box::new(move |stream| placed::take_image(&host, from, &file, bytes, stream))))
            }
            (Request::End { app, number }, Some(from)) => {
                Ok(Outcome::Work(Box::new(move |stream| placed::forget(&host, (from, number), &app, stream))))
            }
            (Request::Wake { app }, Some(_)) => {
                let asleep = || Fault::new(format!("no VM of {app} wakes up"));
                host.fleet_of(&app)?.wake(None).then(|| Outcome::Done(Value::Null)).ok_or_else(asleep)
            }
            (Request::Replicate, Some(number)) => {
                let unknown = || Fault::new(format!("there is no host {number} any more"));
                let from = mesh.roster().numbered(number).map(|member| member.name.clone()).ok_or_else(unknown)?;
                Ok(Outcome::Work(Box::new(move |stream| take_volume(&host, &from, &stream))))
            }
            (Request::Exec { app, vm }, Some(_)) => {
                let machine = host.fleet_of(&app)?.machine(&app, vm)?;
                let kept = Box::new(machine.count());
                Ok(Outcome::Relay(machine.connect(EXEC_PORT, GUEST)?, kept))
            }
            (Request::Logs { app, follow }, Some(_)) => {
                host.parts.state.app(&app)?;
                let (tail, host) = (Tail::new(host.parts.folder.logs(&app)), Weak::clone(&self.0));
                Ok(Outcome::Work(Box::new(move |stream| drop(tell_logs(&host, tail, follow, stream)))))
            }
            (Request::Connect { app, vm, port }, Some(_)) => {
                let is_service =
                    host.parts.state.active(&app)?.spec.services.iter().any(|service| service.port == port);
                if !is_service {
                    return Err(Fault::new(format!("{app} has no service at port {port}"))
                        .next("From another host, the ports of services alone are reached."));
                }
                let machine = host.fleet_of(&app)?.machine(&app, vm)?;
                let kept = Box::new(machine.count());
                Ok(Outcome::Relay(machine.forward(port, GUEST)?, kept))
            }
        }
    }
}

/// The way of volumes to the other hosts.
pub struct ToHosts(pub Weak<Host>);

impl To for ToHosts {
    fn open(&self, host: &str) -> Result<UnixStream> {
        let own = self.0.upgrade().ok_or_else(|| Fault::new("this host ends"))?;
        let mesh = own.mesh()?;
        let number = mesh.roster().named(host)?.number;
        if number == mesh.own {
            return Err(Fault::new(format!("{host} is this host")).next("Name another one in `replicate`."));
        }
        mesh.link.stream(&mesh.peer(number)?, Request::Replicate, ANSWER)
    }
}

/// What a host is told that was taken in.
fn welcome(host: &Host, mesh: &Mesh, number: u16) -> Result<Value> {
    let subnet = host.parts.network.subnet();
    let roster = serde_json::to_value(mesh.roster().as_ref()).context("the hosts")?;
    Ok(json!({ "number": number, "realm": subnet.realm(), "roster": roster }))
}

/// Answers each question of a host with what runs here, until it asks no more. One that was taken out hears that, and nothing else.
fn tell(mesh: &Mesh, host: &Weak<Host>, certificate: &str, mut stream: &UnixStream) -> Result<()> {
    stream.set_read_timeout(Some(QUIET)).context("a host")?;
    stream.set_write_timeout(Some(QUIET)).context("a host")?;
    let mut questions = BufReader::new(stream.try_clone().context("a host")?);
    while let Some(asked) = receive::<Ask>(&mut questions, MOST_TOLD)? {
        let member = mesh.known(certificate);
        if let Some(number) = member {
            mesh.adopt(&asked.roster, number)?;
        }
        let Some(host) = host.upgrade() else { break };
        let apps = if member.is_some() { host.tell_apps()? } else { Vec::new() };
        drop(host);
        send(&mut stream, &Beat { roster: Some(mesh.roster().as_ref().clone()), apps })?;
        if member.is_none() {
            break;
        }
    }
    Ok(())
}
