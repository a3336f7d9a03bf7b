//! Asks other hosts.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::framed::{MOST_LINE, hear, pass_on, say, watched};
use super::identity::Identity;
use super::message::{Answer, Request};
use super::tls;
use crate::fault::{Context, Fault, Result};

/// Threads that answer, or wait for an answer: `server` gives a share of them to each host.
const MOST_WORK: usize = 800;
/// For the connection and the handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// What connections may still take when the link ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// A host that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is found.
    pub endpoint: SocketAddr,
    /// The digest of its certificate.
    pub certificate: String,
}

/// This host's end of all links. It ends when it is dropped.
pub struct Link {
    pub(super) identity: Arc<Identity>,
    runtime: Option<Runtime>,
}

type Stream = BufReader<TlsStream<TcpStream>>;

impl Link {
    /// Starts the threads on which links live.
    ///
    /// # Errors
    /// There are none.
    pub fn new(identity: Identity) -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(MOST_WORK).thread_name("link").enable_all();
        let runtime = builder.build().context("the threads of the link between hosts")?;
        Ok(Self { identity: Arc::new(identity), runtime: Some(runtime) })
    }

    /// The digest by which others know this host.
    ///
    /// # Errors
    /// The certificate is damaged.
    pub fn certificate(&self) -> Result<String> {
        self.identity.digest()
    }

    pub(super) fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().ok_or_else(|| Fault::new("the link between hosts has ended"))
    }

    /// Asks, and waits for the answer: for the connection and then for `limit` at most.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    pub fn ask(&self, peer: &Peer, request: Request, limit: Duration) -> Result<Value> {
        self.wait(peer, request, limit, |answer, _| match answer {
            Answer::Done(value) => Ok(value),
            _ => Err(Fault::new("the other host answered by a stream, which was not asked for")),
        })
    }

    /// Asks for a stream; returns this side's end of it. Any thread may use it, and the end of the stream ends the connection.
    ///
    /// # Errors
    /// The host does not answer, or refuses.
    pub fn stream(&self, peer: &Peer, request: Request, limit: Duration) -> Result<UnixStream> {
        self.wait(peer, request, limit, |answer, stream| {
            if answer != Answer::Stream {
                return Err(Fault::new("the other host answered by something else than a stream"));
            }
            let (ours, theirs) = UnixStream::pair().context("a stream to another host")?;
            tokio::spawn(pass_on(stream, theirs));
            Ok(ours)
        })
    }

    /// The calling thread may be one of another runtime's that is allowed to block.
    fn wait<T: Send + 'static>(
        &self,
        peer: &Peer,
        request: Request,
        limit: Duration,
        make: impl FnOnce(Answer, Stream) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connector = TlsConnector::from(tls::client(&self.identity, &peer.certificate)?);
        let (sender, receiver) = sync_channel(1);
        let (peer, named) = (peer.clone(), peer.endpoint);
        self.runtime()?.spawn(async move {
            let asked = match ask(&connector, &peer, &request, limit).await {
                Ok((Answer::Refused(why), _)) => Err(why),
                Ok((answer, stream)) => make(answer, stream),
                Err(why) => Err(Fault { message: format!("{named}: {}", why.message), next: why.next }),
            };
            let _ = sender.send(asked);
        });
        receiver.recv().map_err(|_| Fault::new("the link between hosts has ended"))?
    }
}

async fn ask(connector: &TlsConnector, peer: &Peer, request: &Request, limit: Duration) -> Result<(Answer, Stream)> {
    let tcp = timeout(CONNECT, TcpStream::connect(peer.endpoint)).await;
    let tcp = tcp.map_err(|_| Fault::new("no connection in time"))?.context("no connection")?;
    watched(&tcp);
    let name = ServerName::try_from("cell").context("TLS")?;
    let tls = timeout(CONNECT, connector.connect(name, tcp)).await;
    let tls = tls.map_err(|_| Fault::new("no handshake in time"))?.map_err(|error| {
        Fault::new(format!("this is not the host that is meant: {error}"))
            .next("Its certificate has another digest than the one that is known of it.")
    })?;
    let mut stream = BufReader::new(tls);
    say(&mut stream, request, limit).await?;
    let answer = hear(&mut stream, MOST_LINE, limit).await?;
    Ok((answer, stream))
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if Handle::try_current().is_ok() {
            // The last who has the link may be one of its own threads, which are not to wait.
            runtime.shutdown_background();
        } else {
            runtime.shutdown_timeout(FAREWELL);
        }
    }
}
