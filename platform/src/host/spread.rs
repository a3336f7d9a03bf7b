//! Has other hosts run a release of an app of this one.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::apps::Host;
use super::mesh::Mesh;
use super::roll::{Progress, roll};
use super::run::{Order, Said, Talk};
use crate::app::App;
use crate::fault::{Context, Fault, Result};
use crate::lines::Hidden;
use crate::link::Request;
use crate::state::{AppRow, Member, Release};

/// How long an answer may take that takes no work.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a host may take for a step, beside what its VMs may take.
const STEP: Duration = Duration::from_secs(300);

/// A release that another host is about to run.
struct There {
    name: String,
    talk: Talk,
}

/// How many VMs run at this host.
pub(super) fn count_here(host: &Host, spec: &App) -> Option<u32> {
    let (hosts, mesh) = (spec.hosts.as_ref()?, host.parts.mesh.as_ref()?);
    let roster = mesh.roster();
    let own = &roster.numbered(mesh.own)?.name;
    Some(hosts.get(own).copied().unwrap_or(0))
}

/// The other hosts that are to run an app, and how many VMs.
pub(super) fn others(host: &Host, spec: &App) -> Vec<(Member, u32)> {
    let (Some(hosts), Some(mesh)) = (&spec.hosts, &host.parts.mesh) else { return Vec::new() };
    let count = |member: Member| hosts.get(&member.name).filter(|count| **count > 0).map(|count| (member, *count));
    mesh.others().into_iter().filter_map(count).collect()
}

/// Has a host start its VMs of a release; it has the image when this returns.
///
/// # Errors
/// The host does not answer, or refuses.
fn begin(
    host: &Host,
    row: &AppRow,
    release: &Release,
    (member, count): &(Member, u32),
    progress: Progress<'_>,
) -> Result<There> {
    let named = |why: Fault| Fault { message: format!("{}: {}", member.name, why.message), next: why.next };
    try_begin(host, row, release, (member, *count), progress).map_err(named)
}

fn try_begin(
    host: &Host,
    row: &AppRow,
    release: &Release,
    (member, count): (&Member, u32),
    progress: Progress<'_>,
) -> Result<There> {
    let mesh = host.mesh()?;
    let peer = mesh.peer(member.number)?;
    let secrets = host.parts.secrets.values(&release.app, &release.spec.secrets)?;
    let secrets = secrets.into_iter().map(|(name, value)| (name, Hidden(value))).collect();
    let run = Request::Run { number: row.number, release: Box::new(release.clone()), count, secrets };
    let limit = release.spec.grace().saturating_add(STEP);
    let mut there = There { name: member.name.clone(), talk: Talk::new(mesh.link.stream(&peer, run, ANSWER)?, limit)? };
    let shown = |what: &str| progress(&format!("{}: {what}", member.name));
    if there.talk.hear(&shown)? == Said::Wants {
        progress(&format!("Sending the image to {}", member.name));
        send(host, mesh, member, &release.image.file)?;
        there.talk.say(&Order::Sent)?;
        there.talk.await_said(&Said::Has, &shown)?;
    }
    Ok(there)
}

/// Sends an image to a host that wants it.
fn send(host: &Host, mesh: &Mesh, member: &Member, file: &str) -> Result<()> {
    let path = host.parts.folder.image(file);
    let mut image = File::open(&path).context(path.display())?;
    let bytes = image.metadata().context(path.display())?.len();
    let request = Request::Image { file: file.to_owned(), bytes };
    let stream = mesh.link.stream(&mesh.peer(member.number)?, request, ANSWER)?;
    stream.set_write_timeout(Some(ANSWER)).context("the image")?;
    io::copy(&mut image, &mut &stream).context("the image")?;
    stream.shutdown(Shutdown::Write).context("the image")?;
    Talk::new(stream, STEP)?.await_said(&Said::Done, &|_| {})
}

impl There {
    /// Waits until its VMs are healthy.
    ///
    /// # Errors
    /// They are not, and it has ended them; or it is gone.
    fn until_healthy(&mut self, progress: Progress<'_>) -> Result<()> {
        let shown = |what: &str| progress(&format!("{}: {what}", self.name));
        let named = |why: Fault| Fault { message: format!("{}: {}", self.name, why.message), next: why.next };
        self.talk.await_said(&Said::Healthy, &shown).map_err(named)
    }

    /// Has them take over.
    fn go(&self) -> Result<()> {
        self.talk.say(&Order::Go)
    }

    /// Waits until they have. If that is not heard, it is seen from what the host tells, and tried again.
    fn finish(mut self, progress: Progress<'_>) {
        let shown = |what: &str| progress(&format!("{}: {what}", self.name));
        if let Err(why) = self.talk.await_said(&Said::Done, &shown) {
            progress(&format!("{} has not said that it is done, and is asked again later: {}", self.name, why.message));
        }
    }
}

/// Puts new VMs of a release in the place of the old ones at all of its hosts but those that are left out: everywhere, or nowhere.
/// `activate` is called once all are healthy.
///
/// # Errors
/// A host does not answer, a VM does not become healthy, or `activate` failed. What ran before goes on everywhere.
pub(super) fn roll_out(
    host: &Host,
    row: &AppRow,
    release: &Arc<Release>,
    (count, without): (u32, &[String]),
    activate: &dyn Fn() -> Result<()>,
    progress: Progress<'_>,
) -> Result<()> {
    let mut begun = Vec::new();
    for other in others(host, &release.spec).iter().filter(|(member, _)| !without.contains(&member.name)) {
        progress(&format!("Starting {} of release {} at {}", other.1, release.number, other.0.name));
        begun.push(begin(host, row, release, other, progress)?);
    }
    let begun = Mutex::new(begun);
    let lock = || begun.lock().unwrap_or_else(PoisonError::into_inner);
    let commit = || {
        lock().iter_mut().try_for_each(|there| there.until_healthy(progress))?;
        activate()?;
        // From here on, it is so, whatever becomes of a host.
        lock().iter().for_each(|there| drop(there.go()));
        Ok(())
    };
    roll(host, &*host.fleet(row)?, release, count, &commit, progress)?;
    lock().drain(..).for_each(|there| there.finish(progress));
    Ok(())
}

/// Has one host run the release that is active, which it has missed.
///
/// # Errors
/// The app is being changed, or the host does not answer or cannot run it.
pub(super) fn catch_up(host: &Arc<Host>, app: &str, number: u16) -> Result<()> {
    let _occupied = host.occupy(app, false)?;
    let (row, release) = (host.parts.state.app(app)?, host.parts.state.active(app)?);
    for other in others(host, &release.spec).iter().filter(|(member, _)| member.number == number) {
        let mut there = begin(host, &row, &release, other, &|_| {})?;
        there.until_healthy(&|_| {})?;
        there.go()?;
        there.finish(&|_| {});
    }
    Ok(())
}

/// Has hosts end an app.
pub(super) fn end(host: &Host, row: &AppRow, members: &[Member], progress: Progress<'_>) {
    for member in members {
        let shown = |what: &str| progress(&format!("{}: {what}", member.name));
        let ended = try_end(host, row, member, &shown);
        if let Err(why) = ended {
            progress(&format!("{}: {}; its VMs end when it is heard again", member.name, why.message));
        }
    }
}

fn try_end(host: &Host, row: &AppRow, member: &Member, progress: Progress<'_>) -> Result<()> {
    let mesh = host.mesh()?;
    if !mesh.is_alive(member.number) {
        return Err(Fault::new("it is dead"));
    }
    let request = Request::End { app: row.name.clone(), number: row.number };
    let stream = mesh.link.stream(&mesh.peer(member.number)?, request, ANSWER)?;
    Talk::new(stream, STEP.saturating_mul(2))?.await_said(&Said::Done, progress)
}
