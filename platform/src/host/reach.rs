//! The way to a VM of an app, at whichever host it is, and to what the VMs at other hosts have said.

use std::os::unix::net::UnixStream;
use std::sync::Weak;
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::apps::Host;
use super::fleet::{Elsewhere, Way};
use super::logs::{Log, Tail};
use crate::fault::{Context, Fault, Result};
use crate::guest::EXEC_PORT;
use crate::lines::send;
use crate::link::Request;
use crate::machine::Counted;
use crate::state::Member;

/// How long a guest may take to answer a connection.
const GUEST: Duration = Duration::from_secs(10);
/// How long another host may take for that, whose guest may have to be woken.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(100);
/// How long whoever asks for a log may take nothing of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to a VM.
pub struct Reached {
    /// What comes from it and goes to it.
    pub stream: UnixStream,
    /// The VM is in use as long as this is kept; another host sees to its own VMs.
    pub counted: Option<Counted>,
}

/// What a host says of a log.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogTold {
    /// A line of it.
    Line(Log),
    /// That was all. Without it, the connection has broken.
    End,
}

impl Host {
    /// Opens the exec port of a VM: this one, or any; at this host, or at any, and then here rather than elsewhere.
    ///
    /// # Errors
    /// There is no such app, host or VM, it is not clear which one is meant, or the VM does not answer.
    pub fn exec(&self, app: &str, vm: Option<u32>, host: Option<&str>) -> Result<Reached> {
        match self.way(app, vm, host)? {
            Way::Here(machine) => {
                let counted = Some(machine.count());
                Ok(Reached { stream: machine.connect(EXEC_PORT, GUEST)?, counted })
            }
            Way::There(there) => self.ask_for(&there, Request::Exec { app: app.to_owned(), vm: there.vm }),
        }
    }

    /// Connects to a TCP port of a VM of an app, here rather than elsewhere. At other hosts it has to be that of a service.
    ///
    /// # Errors
    /// There is no such app, none of its VMs takes connections, or nobody listens there.
    pub fn proxy(&self, app: &str, port: u16) -> Result<Reached> {
        match self.way(app, None, None)? {
            Way::Here(machine) => {
                let counted = Some(machine.count());
                Ok(Reached { stream: machine.forward(port, GUEST)?, counted })
            }
            Way::There(there) => self.ask_for(&there, Request::Connect { app: app.to_owned(), vm: there.vm, port }),
        }
    }

    fn ask_for(&self, there: &Elsewhere, request: Request) -> Result<Reached> {
        let mesh = self.mesh()?;
        let name = self.name_of(there.host);
        let stream = mesh.link.stream(&mesh.peer(there.host)?, request, ANSWER);
        let stream = stream.map_err(|why| Fault { message: format!("{name}: {}", why.message), next: why.next })?;
        Ok(Reached { stream, counted: None })
    }

    fn name_of(&self, host: u16) -> String {
        let roster = self.parts.mesh.as_ref().map(|mesh| mesh.roster());
        let name = roster.and_then(|roster| roster.numbered(host).map(|member| member.name.clone()));
        name.unwrap_or_else(|| format!("host {host}"))
    }

    /// The VM that is meant.
    fn way(&self, app: &str, vm: Option<u32>, host: Option<&str>) -> Result<Way> {
        let fleet = self.fleet_named(app).map_or_else(|| self.fleet_of(app), Ok)?;
        let host = host.map(|name| self.living(name)).transpose()?;
        let here = vm.map_or_else(|| fleet.pick(app), |vm| fleet.machine(app, vm));
        let is_here = host.is_none_or(|host| host == self.number());
        if is_here && (host.is_some() || here.is_ok()) {
            return here.map(Way::Here);
        }
        let is_meant =
            |there: &Elsewhere| host.is_none_or(|host| host == there.host) && vm.is_none_or(|vm| vm == there.vm);
        let meant: Vec<Elsewhere> = match vm {
            Some(_) => fleet.elsewhere().into_iter().filter(is_meant).collect(),
            None => fleet.ways().into_iter().filter_map(Way::there).filter(is_meant).take(1).collect(),
        };
        match &meant[..] {
            [] => match (host, vm) {
                (None, _) => here.map(Way::Here),
                (Some(host), Some(vm)) => Err(self.no_vm(app, host, &format!("has no VM {vm} of"))),
                (Some(host), None) => Err(self.no_vm(app, host, "has no VM that takes connections of")),
            },
            [one] => Ok(Way::There(one.clone())),
            several => {
                let names: Vec<String> = several.iter().map(|there| self.name_of(there.host)).collect();
                let why = format!("there is such a VM of {app} at several hosts: {}", names.join(", "));
                Err(Fault::new(why).next("Say which one by --host NAME."))
            }
        }
    }

    fn no_vm(&self, app: &str, host: u16, what: &str) -> Fault {
        Fault::new(format!("{} {what} {app}", self.name_of(host))).next(format!("`cell status {app}` lists them."))
    }

    /// The number of the host of this name.
    fn living(&self, name: &str) -> Result<u16> {
        let mesh = self.mesh()?;
        let number = mesh.roster().named(name)?.number;
        if mesh.is_alive(number) {
            return Ok(number);
        }
        Err(Fault::new(format!("the host {name} is dead")).next("`cell hosts list` lists those that are alive."))
    }

    /// The other hosts that are to have VMs of an app, each of which is alive or not.
    ///
    /// # Errors
    /// Those of the database.
    pub fn hosts_with_logs(&self, app: &str) -> Result<Vec<(Member, bool)>> {
        let Some(mesh) = &self.parts.mesh else { return Ok(Vec::new()) };
        let known = self.known(None)?.into_iter().find(|known| known.name == app);
        let hosts = known.map_or_else(Vec::new, |known| known.hosts);
        let others = mesh.others().into_iter().filter(|member| hosts.contains(&member.number));
        Ok(others.map(|member| (member.clone(), mesh.is_alive(member.number))).collect())
    }

    /// What the VMs of an app at another host have said: lines of [`LogTold`].
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    pub fn logs_at(&self, host: &Member, app: &str, follow: bool) -> Result<UnixStream> {
        let mesh = self.mesh()?;
        mesh.link.stream(&mesh.peer(host.number)?, Request::Logs { app: app.to_owned(), follow }, ANSWER)
    }
}

/// Tells another host what VMs have said here, and what they say as long as this one is there.
pub(super) fn tell_logs(host: &Weak<Host>, mut tail: Tail, follow: bool, mut stream: UnixStream) -> Result<()> {
    stream.set_write_timeout(Some(PATIENCE)).context("a log")?;
    while host.strong_count() > 0 {
        tail.read().into_iter().try_for_each(|log| send(&mut stream, &LogTold::Line(log)))?;
        if !follow {
            return send(&mut stream, &LogTold::End);
        }
        if is_over(&stream) {
            break;
        }
        sleep(LOOK);
    }
    Ok(())
}

/// Has the other side closed the stream, or said something, which it has no reason to?
#[must_use]
pub fn is_over(stream: &UnixStream) -> bool {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    rustix::net::recv(stream, &mut [0; 1], flags).is_ok()
}
