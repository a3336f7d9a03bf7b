//! The edge: HTTPS from the internet to the backends of apps, with certificates that it gets by itself.
//!
//! | File | What it is |
//! |---|---|
//! | `routes` | which app serves which name, which the caller says |
//! | `validity`, `certificates` | from when until when a certificate holds, and which one is shown |
//! | `store` | certificates and keys at rest |
//! | `counts`, `quiet` | how many connections there are, and how long nothing may move on one |
//! | `shared` | what all of them have in common |
//! | `fetch`, `acme` | requests to the ACME server, and orders |
//! | `place`, `upload`, `turns` | which host a request is for, how its body moves, and how many to one app look for a backend |
//! | `pool` | connections to backends that wait for another request |
//! | `websocket` | other protocols than HTTP, and what of them is said by HTTP |
//! | `proxy` | a request and its answer |
//! | `held` | the body of an answer, which counts until it has left |
//! | `workers` | the threads that serve |
//! | `serve` | listeners and connections |
//!
//! It has threads of its own, on which all of that runs; the one place that may block, [`Routes::connect`], has others.

mod acme;
#[cfg(test)]
mod attack_test;
#[cfg(test)]
mod browser_test;
mod certificates;
mod counts;
mod fetch;
mod held;
mod place;
mod pool;
#[cfg(test)]
mod pool_test;
mod proxy;
mod quiet;
mod routes;
mod serve;
mod shared;
mod store;
#[cfg(test)]
mod streams_test;
mod turns;
mod upload;
mod validity;
mod websocket;
#[cfg(test)]
mod websocket_test;
mod workers;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use self::acme::Orders;
use self::certificates::Certificates;
use self::serve::{listen, tls};
use self::shared::Shared;
use self::store::Store;
use self::turns::Turns;
use self::workers::Threads;
use crate::fault::{Context, Fault, Result};

pub(crate) use self::counts::Counts;
pub(crate) use self::place::Place;
pub(crate) use self::quiet::Quiet;

pub use self::acme::{Authority, CertificateStatus};
pub use self::routes::{Again, Backend, Kept, Refusal, Routes, check_name};
pub use self::shared::{EdgeLimits, Say};

/// Threads for connections.
const WORKERS: usize = 2;
/// So many of them look for backends at once, and so many for one owner of names at the most. More requests wait; what is left is for orders.
const MOST_TURNS: (usize, usize) = (448, 16);

/// What the edge is to be.
pub struct EdgeSettings {
    /// Where HTTP is served: redirects, and challenges.
    pub http: Vec<TcpListener>,
    /// Where HTTPS is served.
    pub https: Vec<TcpListener>,
    /// The port of HTTPS as clients see it, for redirects.
    pub https_port: u16,
    /// The folder in which certificates and keys are kept, sealed. It is made if it is not there.
    pub folder: PathBuf,
    /// Where certificates come from; `None` for those that are kept already.
    pub authority: Option<Authority>,
    /// What clients may take.
    pub limits: EdgeLimits,
}

/// A running edge. It ends when it is dropped.
pub struct Edge {
    shared: Arc<Shared>,
    orders: Option<Arc<Orders>>,
    _threads: Threads,
}

impl Edge {
    /// Shows the certificates that are kept, serves, and orders what is missing.
    ///
    /// # Errors
    /// If the folder cannot be used, or threads or TLS cannot be had. A certificate that cannot be read or ordered is none: it is said,
    /// and the other names are served.
    pub fn start(settings: EdgeSettings, routes: Arc<dyn Routes>, say: Say) -> Result<Self> {
        let EdgeSettings { http, https, https_port, folder, authority, limits } = settings;
        let store = Arc::new(Store::open(&folder)?);
        let certificates = Arc::new(Certificates::default());
        let counts = || Arc::new(Counts::new(limits.connections, limits.of_one_address));
        let shared = Shared {
            routes,
            certificates,
            store,
            counts: counts(),
            requests: counts(),
            limits,
            https_port,
            say,
            turns: Arc::new(Turns::new(MOST_TURNS.0, MOST_TURNS.1)),
            pool: Arc::default(),
        };
        shared.show_kept();
        let acceptor = tls(&shared)?;
        let (threads, workers) = workers::start(WORKERS, &shared)?;
        let shared = Arc::new(shared);
        let without = http.into_iter().map(|listener| (listener, None));
        let with = https.into_iter().map(|listener| (listener, Some(acceptor.clone())));
        let first = workers.first().ok_or_else(|| Fault::new("the edge has no threads"))?.handle.clone();
        for (listener, tls) in without.chain(with) {
            let _entered = first.enter();
            listener.set_nonblocking(true).context("a listener")?;
            let listener = tokio::net::TcpListener::from_std(listener).context("a listener")?;
            first.spawn(listen(Arc::clone(&workers), listener, tls));
        }
        let orders = authority.map(|authority| Arc::new(Orders::new(authority)));
        if let Some(orders) = &orders {
            first.spawn(Arc::clone(orders).run(Arc::clone(&shared)));
        }
        Ok(Self { shared, orders, _threads: threads })
    }

    /// Says that [`Routes::names`] has changed, so that certificates of new names are ordered now and not within a minute.
    pub fn names_changed(&self) {
        self.shared.show_kept();
        self.orders.iter().for_each(|orders| orders.look());
    }

    /// What is known of the certificate of each name.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let ends = self.shared.certificates.ends();
        let seconds = |name: &String| Some(ends.get(name)?.duration_since(UNIX_EPOCH).ok()?.as_secs());
        let trouble = |name: &String| self.orders.as_ref()?.trouble(name);
        let names = self.shared.routes.names().into_iter();
        names.map(|name| CertificateStatus { ends: seconds(&name), trouble: trouble(&name), name }).collect()
    }
}
