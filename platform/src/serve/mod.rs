//! `cell serve`: the socket of the API, and the start and the end of all.

mod answer;
mod kept;
mod relay;

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::api::{Answer, SOCKET, send};
use crate::fault::{Context, Fault, Result};
use crate::host::{self, Host};

/// So many commands are served at a time.
const MOST_CLIENTS: usize = 256;

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
    let clients = Arc::new(AtomicUsize::new(0));
    while !signalled(&listener, &mut signals)? {
        let Ok((stream, _)) = listener.accept() else { continue };
        take(host, stream, &clients);
    }
    say("Ending all VMs");
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
