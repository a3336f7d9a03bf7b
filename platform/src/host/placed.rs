//! Runs what other hosts deploy here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::apps::Host;
use super::lifecycle::end;
use super::roll::roll;
use super::run::{Order, Said, Talk};
use crate::app::{self, MOST_VMS};
use crate::fault::{Context, Fault, Result};
use crate::lines::Hidden;
use crate::state::{Release, owner_of};

/// How long the host that deploys may wait for its own VMs and those of others.
const PATIENCE: Duration = Duration::from_hours(2);
/// How long nothing of an image may come.
const QUIET: Duration = Duration::from_secs(30);
/// An image is no larger, in bytes; what is in one is bounded when it is made.
const LARGEST_IMAGE: u64 = 20 << 30;
/// What is read of an image at a time, in bytes.
const PIECE: usize = 256 << 10;

/// What another host asks to be run.
pub(super) struct Wanted {
    /// The host that asks.
    pub from: u16,
    /// The app's number.
    pub number: u32,
    pub release: Release,
    pub count: u32,
    pub secrets: BTreeMap<String, Hidden>,
}

impl Wanted {
    fn check(&self) -> Result<()> {
        let Release { app, spec, image, .. } = &self.release;
        if owner_of(self.number) != self.from || spec.name != *app {
            return Err(Fault::new(format!("app number {} is none of that host's", self.number)));
        }
        if self.count > MOST_VMS {
            return Err(Fault::new(format!("{} VMs; allowed are 0 to {MOST_VMS}", self.count)));
        }
        if let Some(name) = self.secrets.keys().find(|name| !spec.secrets.contains(name)) {
            return Err(Fault::new(format!("the secret {name:?} comes with {app}, which does not have it")));
        }
        check_file(&image.file)?;
        app::check_told(spec)
    }
}

/// The name of an image follows from its digest, and leads nowhere else.
fn check_file(file: &str) -> Result<&str> {
    let digest = file.strip_suffix(".erofs").unwrap_or_default();
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digest);
    }
    Err(Fault::new(format!("{file:?} is no name of an image; allowed are 64 hexadecimal digits and .erofs")))
}

/// Runs a release, and says on the stream what becomes of it. It takes over when the other host says so.
pub(super) fn run(host: &Arc<Host>, wanted: Wanted, stream: UnixStream) {
    // Without a stream, there is nobody to be told.
    let Ok(talk) = Talk::new(stream, PATIENCE) else { return };
    let talk = Mutex::new(talk);
    let ran = try_run(host, wanted, &talk);
    let last = ran.map_or_else(Said::Failed, |()| Said::Done);
    let _ = talk.into_inner().unwrap_or_else(PoisonError::into_inner).say(&last);
}

fn try_run(host: &Arc<Host>, wanted: Wanted, talk: &Mutex<Talk>) -> Result<()> {
    wanted.check()?;
    let (parts, app) = (&host.parts, wanted.release.app.clone());
    let _occupied = host.occupy(&app, false)?;
    check_new(host, &wanted)?;
    let volumes = &wanted.release.spec.volumes;
    let new = volumes.iter().filter(|volume| !matches!(parts.state.volume(&app, &volume.name), Ok(Some(_)))).count();
    if new > 0 {
        parts.secrets.take_from_others(new)?;
    }
    parts.state.place(wanted.number, &wanted.release)?;
    if let Err(why) = prepare(host, &wanted, talk) {
        parts.state.fail(&wanted.release, &why.message)?;
        return Err(why);
    }
    let talk = || talk.lock().unwrap_or_else(PoisonError::into_inner);
    talk().say(&Said::Has)?;
    let (release, row) = (Arc::new(wanted.release), parts.state.app(&app)?);
    // It is known here from now on, and so are its rules.
    host.set_rules()?;
    let progress = |what: &str| drop(talk().say(&Said::Progress(what.to_owned())));
    let go = || {
        talk().say(&Said::Healthy)?;
        talk().await_order(Order::Go)?;
        host.activate(&release, wanted.count)
    };
    let rolled = roll(host, &*host.fleet(&row)?, &release, wanted.count, &go, &progress);
    if let Err(why) = &rolled {
        parts.state.fail(&release, &why.message)?;
    }
    host.sweep().and(rolled)
}

/// Makes what the VMs of a release need.
fn prepare(host: &Host, wanted: &Wanted, talk: &Mutex<Talk>) -> Result<()> {
    let talk = || talk.lock().unwrap_or_else(PoisonError::into_inner);
    let (parts, app) = (&host.parts, wanted.release.app.as_str());
    host.volumes().make(app, &wanted.release.spec.volumes, Some(wanted.from))?;
    let image = parts.folder.image(&wanted.release.image.file);
    if !image.exists() {
        talk().say(&Said::Wants)?;
        talk().await_order(Order::Sent)?;
        image.metadata().context("the image that was sent")?;
    }
    wanted.secrets.iter().try_for_each(|(name, value)| parts.secrets.set(app, name, &value.0))
}

/// Refuses an app of a name whose secrets or volumes are here already, and are not that host's.
fn check_new(host: &Host, wanted: &Wanted) -> Result<()> {
    let (app, spec, parts) = (&wanted.release.app, &wanted.release.spec, &host.parts);
    if let Some(name) = spec.secrets.iter().find(|name| !wanted.secrets.contains_key(*name)) {
        return Err(Fault::new(format!("the app {app} wants the secret {name}, and its value was not sent")));
    }
    if parts.state.app(app).is_ok() {
        // The number says whose it is.
        return Ok(());
    }
    if let Some(secret) = parts.secrets.list(app)?.first() {
        let next =
            format!("Give the app another name, or take it out there: `cell secrets unset {app} {}`.", secret.name);
        return Err(Fault::new(format!("there is a secret {} of another app {app} already", secret.name)).next(next));
    }
    host.volumes().check_foreign(app, &spec.volumes, wanted.from)
}

/// Takes an image that a release of another host's has, and says on the stream whether it is whole.
pub(super) fn take_image(host: &Host, from: u16, file: &str, bytes: u64, stream: UnixStream) {
    let taken = try_take(host, from, file, bytes, &stream);
    let Ok(talk) = Talk::new(stream, QUIET) else { return };
    let _ = talk.say(&taken.map_or_else(Said::Failed, |()| Said::Done));
}

fn try_take(host: &Host, from: u16, file: &str, bytes: u64, stream: &UnixStream) -> Result<()> {
    let digest = check_file(file)?;
    if bytes > LARGEST_IMAGE {
        return Err(Fault::new(format!("an image of {bytes} bytes; allowed are {LARGEST_IMAGE}")));
    }
    let is_wanted = host.parts.state.releases(None)?.iter().any(|release| release.image.file == file);
    if !is_wanted {
        return Err(Fault::new(format!("no release here has the image {file}")));
    }
    let path = host.parts.folder.image(&format!(".{from}.{digest}.new"));
    let made = write(&path, bytes, stream).and_then(|found| {
        if found != digest {
            return Err(Fault::new(format!("the image has the digest {found}, and {digest} was said")));
        }
        std::fs::rename(&path, host.parts.folder.image(file)).context("the image")
    });
    made.inspect_err(|_| drop(std::fs::remove_file(&path)))
}

/// Writes what comes; returns its digest.
fn write(path: &std::path::Path, bytes: u64, mut stream: &UnixStream) -> Result<String> {
    stream.set_read_timeout(Some(QUIET)).context("the image")?;
    let mut image = File::create(path).context(path.display())?;
    let (mut digest, mut came, mut piece) = (Sha256::new(), 0_u64, vec![0; PIECE]);
    loop {
        let read = stream.read(&mut piece).context("the image")?;
        let some = piece.get(..read).unwrap_or_default();
        came = came.saturating_add(read as u64);
        if read == 0 || came > bytes {
            break;
        }
        digest.update(some);
        image.write_all(some).context(path.display())?;
    }
    if came != bytes {
        return Err(Fault::new(format!("{came} bytes of the image came, and {bytes} were said")));
    }
    image.sync_all().context(path.display())?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Ends an app of another host's here, and says on the stream when that is done.
pub(super) fn forget(host: &Arc<Host>, (from, number): (u16, u32), app: &str, stream: UnixStream) {
    let Ok(talk) = Talk::new(stream, PATIENCE) else { return };
    let talk = Mutex::new(talk);
    let progress =
        |what: &str| drop(talk.lock().unwrap_or_else(PoisonError::into_inner).say(&Said::Progress(what.to_owned())));
    let is_theirs = owner_of(number) == from && host.parts.state.app(app).is_ok_and(|row| row.number == number);
    let ended = if is_theirs { end(host, app, &progress) } else { Ok(()) };
    let last = ended.map_or_else(Said::Failed, |()| Said::Done);
    let _ = talk.lock().unwrap_or_else(PoisonError::into_inner).say(&last);
}
