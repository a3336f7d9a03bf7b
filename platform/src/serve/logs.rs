//! What the VMs of an app say, at all of its hosts.

use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::Duration;

use crate::api::{Answer, send};
use crate::fault::{Context, Fault, Result};
use crate::host::{Host, LogTold, Tail, is_over, shown};
use crate::lines::receive;
use crate::state::Member;

/// Between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(100);
/// The longest line of another host's, in bytes: one of a log, in JSON.
const MOST_LINE: u64 = 256 << 10;
/// How long another host may take for the next line, if its logs are not followed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told to whom.
struct Telling<'a, 'c> {
    host: &'a Host,
    /// One line is told at a time.
    client: &'a Mutex<&'c UnixStream>,
    app: &'a str,
    follow: bool,
    /// Other hosts that tell yet.
    left: AtomicUsize,
    /// What comes from them; none when it is not wanted any more.
    streams: Mutex<Option<Vec<UnixStream>>>,
}

/// Tells a client what the VMs of an app have said, and, if it follows them, what they say until it is gone.
///
/// # Errors
/// There is no such app, not all hosts have told all of it, or the client is gone.
pub fn logs(host: &Host, client: &Mutex<&UnixStream>, app: &str, follow: bool) -> Result<()> {
    let others = host.hosts_with_logs(app)?;
    let is_here = match host.parts.state.app(app) {
        Err(none) if others.is_empty() => return Err(none),
        known => known.is_ok(),
    };
    let (left, streams) = (AtomicUsize::new(others.len()), Mutex::new(Some(Vec::new())));
    let telling = &Telling { host, client, app, follow, left, streams };
    scope(|scope| {
        let begin = |other| scope.spawn(move || telling.theirs(other));
        let theirs: Vec<ScopedJoinHandle<'_, _>> = others.iter().map(begin).collect();
        let own = telling.own(is_here);
        if follow || own.is_err() {
            telling.end();
        }
        theirs.into_iter().fold(own, |told, theirs| told.and(theirs.join().unwrap_or(Ok(()))))
    })
}

impl Telling<'_, '_> {
    fn tell(&self, answer: &Answer) -> Result<()> {
        send(&mut *self.client.lock().unwrap_or_else(PoisonError::into_inner), answer)
    }

    fn is_gone(&self) -> bool {
        is_over(&self.client.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of this host.
    fn own(&self, is_here: bool) -> Result<()> {
        let name = self.host.own_name();
        let mut tail = is_here.then(|| Tail::new(self.host.parts.folder.logs(self.app)));
        loop {
            for log in tail.iter_mut().flat_map(Tail::read) {
                self.tell(&Answer::Log { vm: log.vm, host: name.clone(), line: log.line })?;
            }
            let is_all = tail.is_none() && self.left.load(Ordering::SeqCst) == 0;
            if !self.follow || is_all || self.is_gone() {
                return Ok(());
            }
            sleep(LOOK);
        }
    }

    /// Those of another host. If it does not tell all, whoever follows the others hears that at once.
    fn theirs(&self, (member, is_alive): &(Member, bool)) -> Result<()> {
        let told = if *is_alive { self.pass_on(member) } else { Err(Fault::new("it is dead")) };
        let told = told.map_err(|why| {
            let message = format!("not all that VMs at {} have said is here: {}", member.name, why.message);
            Fault::new(message).next("`cell hosts list` lists the hosts that are alive.")
        });
        if let (Err(why), true) = (&told, self.follow) {
            let _ = self.tell(&Answer::Progress(why.message.clone()));
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        told
    }

    fn pass_on(&self, member: &Member) -> Result<()> {
        let stream = self.host.logs_at(member, self.app, self.follow)?;
        stream.set_read_timeout((!self.follow).then_some(PATIENCE)).context("the stream")?;
        let end = stream.try_clone().context("the stream")?;
        match self.streams.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(streams) => streams.push(end),
            None => return Ok(()),
        }
        let mut lines = BufReader::new(stream);
        loop {
            match receive::<LogTold>(&mut lines, MOST_LINE)? {
                Some(LogTold::Line(log)) => {
                    // The other host may have said anything.
                    let line = shown(log.line.as_bytes());
                    self.tell(&Answer::Log { vm: log.vm, host: Some(member.name.clone()), line })?;
                }
                Some(LogTold::End) => return Ok(()),
                None => return Err(Fault::new("the connection to it has ended")),
            }
        }
    }

    /// Nobody wants more of it.
    fn end(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner).take();
        streams.iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}
