//! `cell serve`: the socket of the API, and the start and the end of all.

mod answer;
#[cfg(test)]
mod answer_test;
mod kept;
mod logs;
mod relay;

use std::fs::Permissions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

pub(crate) use self::answer::status;
use crate::api::{Answer, SOCKET, send};
use crate::fault::{Context, Fault, Result};
use crate::host::{self, Host, Upkeep};

/// So many commands are served at a time.
const MOST_CLIENTS: usize = 256;

/// How long none is let in after the host gave no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);

/// Allows this process as many descriptors as the host lets it have: VMs, connections and volumes take them.
///
/// # Errors
/// The host does not allow it.
pub fn raise_descriptors() -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("the limit of descriptors (RLIMIT_NOFILE)")
}

/// Starts what should run, and serves commands until a signal comes; then ends all VMs.
///
/// # Errors
/// The socket cannot be made, or the database cannot be read.
pub fn serve(host: &Arc<Host>, say: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let mut signals = signals()?;
    let path = host.parts.folder.path().join(SOCKET);
    let listener = listen(&path)?;
    let started = host::resume(host, say)?;
    say(&format!(
        "{} serves; started: {}",
        path.display(),
        if started.is_empty() { "nothing".into() } else { started.join(", ") }
    ));
    let upkeep = Upkeep::start(host, Arc::new(host::ToHosts(Arc::downgrade(host))))?;
    let clients = Arc::new(AtomicUsize::new(0));
    while !signalled(&listener, &mut signals)? {
        match listener.accept() {
            Ok((stream, _)) => take(host, stream, &clients),
            // The client is gone again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The host has no descriptor for one, which stays readable meanwhile.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    say("Ending all VMs");
    drop(upkeep);
    let _ = std::fs::remove_file(&path);
    host::shut_down(host);
    Ok(())
}

fn signals() -> Result<UnixStream> {
    let (reader, writer) = UnixStream::pair().context("signals")?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone().context("signals")?).context("signals")?;
    }
    Ok(reader)
}

fn listen(path: &Path) -> Result<UnixListener> {
    // The folder's lock is ours, so a socket that is there has nobody behind it.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(|error| {
        Fault::new(format!("{}: {error}", path.display()))
            .next("A socket's path has 107 bytes at most: choose another folder by --state.")
    })?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).context(path.display())?;
    listener.set_nonblocking(true).context(path.display())?;
    Ok(listener)
}

/// Waits for a client or a signal; true if it was a signal.
fn signalled(listener: &UnixListener, signals: &mut UnixStream) -> Result<bool> {
    let mut polled = [PollFd::new(listener, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    match poll(&mut polled, None) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(false),
        Err(error) => return Err(Fault::new(format!("poll: {error}"))),
    }
    let came = polled.last().is_some_and(|signals| !signals.revents().is_empty());
    if came {
        let _ = signals.read(&mut [0; 16]);
    }
    Ok(came)
}

fn take(host: &Arc<Host>, mut stream: UnixStream, clients: &Arc<AtomicUsize>) {
    let _ = stream.set_nonblocking(false);
    if clients.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS {
        clients.fetch_sub(1, Ordering::Relaxed);
        let refused = Fault::new(format!("{MOST_CLIENTS} commands are being served, and no more are allowed"));
        let _ = send(&mut stream, &Answer::Refused(refused));
        return;
    }
    let (host, counted) = (Arc::clone(host), Arc::clone(clients));
    let served = std::thread::Builder::new().name("command".into()).spawn(move || {
        answer::answer(&host, &stream);
        counted.fetch_sub(1, Ordering::Relaxed);
    });
    if served.is_err() {
        clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_descriptors_are_allowed_as_the_host_lets_us_have() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(maximum.map_or(1000, |most| most.min(1000))), maximum };
        setrlimit(Resource::Nofile, few).unwrap();
        raise_descriptors().unwrap();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: maximum, maximum });
    }
}
