//! Answers other hosts. What each of them may take is bounded, and what nobody knows may take least.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::Link;
use super::framed::{MOST_LINE, hear_by_turns, pass_on, say, watched};
use super::identity::digest;
use super::message::{Answer, Request};
use super::tls;
use crate::fault::{Context, Fault, Result};

/// The longest of a host that is not known.
const MOST_STRANGE_LINE: u64 = 4 << 10;
/// Connections that are not known yet, or are of hosts that are not known. As many more may come from where the known ones are found, so that
/// nobody else takes their place.
const MOST_STRANGERS: usize = 32;
/// Connections of one host.
const MOST_CONNECTIONS: usize = 512;
/// Long requests of one host that come or wait for a thread. More wait for a while.
const MOST_LONG_LINES: usize = 4;
/// Threads that answer one host at a time: for releases and copies of volumes, which may take hours, for what does not, for the streams on which hosts
/// say that they live, for logs that are followed, and for ways to VMs. More of its requests wait for a while, and hold up none of the other kinds.
const MOST_WORK_OF_ONE: [usize; KINDS] = [6, 8, 2, 8, 24];
const KINDS: usize = 5;
/// Those that look for a way to VMs of one app, whose guests may not answer.
const MOST_WORK_OF_AN_APP: usize = 8;
/// Ways of one host that are open, and those of them to one app. The other connections are for what hosts say to each other.
const MOST_WAYS: (usize, usize) = (384, 128);
/// For the handshake, for a request, and for the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a thread that answers.
const TURN: Duration = Duration::from_secs(25);
/// How long none is let in after the host gave no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks whether the other host is one of the mesh still.
const LOOK: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The number of the host; none for one that is not known.
    pub host: Option<u16>,
    /// The digest of its certificate, of which it has the key.
    pub certificate: String,
}

/// What a request leads to.
pub enum Outcome {
    /// An answer.
    Done(serde_json::Value),
    /// The bytes of this socket are passed on, and what is beside it is kept until they end.
    Relay(UnixStream, Box<dyn Any + Send>),
    /// This is called with the stream, on a thread that may block, until it returns.
    Work(Box<dyn FnOnce(UnixStream) + Send>),
}

/// Answers requests.
pub trait Serves: Send + Sync + 'static {
    /// The number of the host whose certificate has this digest. Does not block.
    fn known(&self, certificate: &str) -> Option<u16>;

    /// Whether a host of the mesh is found at this address. Does not block.
    fn is_found_at(&self, address: IpAddr) -> bool;

    /// Answers a request, on a thread that may block.
    ///
    /// # Errors
    /// What is refused; the host that asks is told.
    fn answer(&self, caller: &Caller, request: Request) -> Result<Outcome>;
}

type Connection = BufReader<TlsStream<TcpStream>>;

/// What all connections have in common.
struct Shared {
    serves: Arc<dyn Serves>,
    tls: TlsAcceptor,
    /// From anywhere, and from where the hosts of the mesh are found.
    strangers: [Arc<Semaphore>; 2],
    rooms: Mutex<BTreeMap<u16, Room>>,
}

/// What one host may take.
#[derive(Clone)]
struct Room {
    connections: Arc<Semaphore>,
    long_lines: Arc<Semaphore>,
    works: [Arc<Semaphore>; KINDS],
    ways: Arc<Semaphore>,
    apps: Arc<Mutex<BTreeMap<String, ToApp>>>,
}

/// What one host may take of one app.
#[derive(Clone)]
struct ToApp {
    work: Arc<Semaphore>,
    ways: Arc<Semaphore>,
}

/// What a request takes for as long as it has a thread, and, if it is for a way to a VM, until that has ended.
struct Turn {
    work: [Option<OwnedSemaphorePermit>; 2],
    way: Option<[OwnedSemaphorePermit; 2]>,
}

impl Link {
    /// Answers other hosts at this address, as long as the link lives.
    ///
    /// # Errors
    /// The listener or the identity cannot be used.
    pub fn serve(&self, listener: TcpListener, serves: Arc<dyn Serves>) -> Result<()> {
        let tls: Arc<ServerConfig> = tls::server(&self.identity)?;
        let strangers = [(), ()].map(|()| Arc::new(Semaphore::new(MOST_STRANGERS)));
        let shared = Arc::new(Shared { serves, tls: TlsAcceptor::from(tls), strangers, rooms: Mutex::default() });
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        listener.set_nonblocking(true).context("the link between hosts")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("the link between hosts")?;
        runtime.spawn(listen(shared, listener));
        Ok(())
    }
}

async fn listen(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    loop {
        let Ok((tcp, from)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let [anywhere, hosts] = &shared.strangers;
        let room = if shared.serves.is_found_at(from.ip().to_canonical()) { hosts } else { anywhere };
        // One more is closed at once.
        let Ok(stranger) = Arc::clone(room).try_acquire_owned() else { continue };
        tokio::spawn(serve(Arc::clone(&shared), tcp, stranger));
    }
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, stranger: OwnedSemaphorePermit) {
    watched(&tcp);
    let Ok(Ok(tls)) = timeout(PATIENCE, shared.tls.accept(tcp)).await else { return };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|one| digest(one));
    let Some(certificate) = certificate else { return };
    let caller = Caller { host: shared.serves.known(&certificate), certificate };
    let mut stream = BufReader::new(tls);
    let Some((room, _counted, most)) = shared.room(&caller, stranger) else {
        let full = Fault::new(format!("there are {MOST_CONNECTIONS} connections of this host already"));
        return drop(say(&mut stream, &Answer::Refused(full), PATIENCE).await);
    };
    let (request, long) = match hear_by_turns(&mut stream, &room.long_lines, most, PATIENCE).await {
        Ok(heard) => heard,
        Err(why) => return drop(say(&mut stream, &Answer::Refused(why), PATIENCE).await),
    };
    let turn = timeout(TURN, room.turn(&request)).await;
    let Some(Turn { work, way }) = turn.ok().flatten() else {
        let busy = Fault::new("too much of this kind is being done for this host already").next("Try again later.");
        return drop(say(&mut stream, &Answer::Refused(busy), PATIENCE).await);
    };
    let (serves, asker) = (Arc::clone(&shared.serves), caller.clone());
    let outcome = spawn_blocking(move || (serves.answer(&asker, request), work)).await;
    drop(long);
    let Ok((outcome, work)) = outcome else { return };
    tokio::select! {
        // The host may be gone, and then nobody is to be told.
        _ = answer(stream, outcome, work) => drop(way),
        () = removed(&shared, &caller) => {}
    }
}

/// Waits until a host is another one, or none of the mesh.
async fn removed(shared: &Shared, caller: &Caller) {
    while shared.serves.known(&caller.certificate) == caller.host || caller.host.is_none() {
        sleep(LOOK).await;
    }
}

async fn answer(mut stream: Connection, outcome: Result<Outcome>, work: impl Send + 'static) -> io::Result<()> {
    let told = match &outcome {
        Ok(Outcome::Done(value)) => Answer::Done(value.clone()),
        Ok(Outcome::Relay(..) | Outcome::Work(_)) => Answer::Stream,
        Err(why) => Answer::Refused(why.clone()),
    };
    say(&mut stream, &told, PATIENCE).await.map_err(|why| io::Error::other(why.message))?;
    match outcome {
        Ok(Outcome::Relay(socket, kept)) => {
            drop(work);
            pass_on(stream, socket).await?;
            drop(kept);
        }
        Ok(Outcome::Work(speak)) => {
            let (ours, theirs) = UnixStream::pair()?;
            spawn_blocking(move || {
                speak(ours);
                drop(work);
            });
            pass_on(stream, theirs).await?;
        }
        Ok(Outcome::Done(_)) | Err(_) => tokio::io::AsyncWriteExt::shutdown(&mut stream).await?,
    }
    Ok(())
}

impl Shared {
    /// What a caller may take, what counts its connection, and how long its messages may be. A host that is known makes room for those that are not.
    fn room(&self, caller: &Caller, stranger: OwnedSemaphorePermit) -> Option<(Room, OwnedSemaphorePermit, u64)> {
        let Some(host) = caller.host else {
            return Some((Room::new(0, 0, [1; KINDS]), stranger, MOST_STRANGE_LINE));
        };
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Room::new(MOST_CONNECTIONS, MOST_LONG_LINES, MOST_WORK_OF_ONE);
        let room = rooms.entry(host).or_insert_with(new);
        let counted = Arc::clone(&room.connections).try_acquire_owned().ok()?;
        Some((room.clone(), counted, MOST_LINE))
    }
}

impl Room {
    fn new(connections: usize, long_lines: usize, works: [usize; KINDS]) -> Self {
        let semaphore = |most| Arc::new(Semaphore::new(most));
        Self {
            connections: semaphore(connections),
            long_lines: semaphore(long_lines),
            works: works.map(semaphore),
            ways: semaphore(MOST_WAYS.0),
            apps: Arc::default(),
        }
    }

    /// Waits for a thread for a request, and, if it is for a way to a VM, until there may be one more; none if that will not be.
    async fn turn(self, request: &Request) -> Option<Turn> {
        let [slow, quick, alive, logs, ways] = self.works.clone();
        let kind = match request {
            Request::Beat => alive,
            Request::Run { .. } | Request::Replicate => slow,
            Request::Logs { .. } => logs,
            Request::Connect { app, .. } | Request::Exec { app, .. } => {
                let to = self.to_app(app);
                let way = Some([to.ways.try_acquire_owned().ok()?, self.ways.try_acquire_owned().ok()?]);
                // An app whose guests do not answer has its share of the threads, and waits for no more.
                let of_app = to.work.acquire_owned().await.ok();
                return Some(Turn { work: [of_app, ways.acquire_owned().await.ok()], way });
            }
            _ => quick,
        };
        Some(Turn { work: [None, kind.acquire_owned().await.ok()], way: None })
    }

    fn to_app(&self, app: &str) -> ToApp {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|_, to| Arc::strong_count(&to.work) > 1 || Arc::strong_count(&to.ways) > 1);
        let semaphore = |most| Arc::new(Semaphore::new(most));
        let new = || ToApp { work: semaphore(MOST_WORK_OF_AN_APP), ways: semaphore(MOST_WAYS.1) };
        apps.entry(app.to_owned()).or_insert_with(new).clone()
    }
}
