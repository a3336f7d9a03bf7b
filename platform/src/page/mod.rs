//! The page of `cell serve --ui`: what runs, what it uses, and what it says, in a browser on this host.
//!
//! | File | What it is |
//! |---|---|
//! | `figures` | what VMs and the host use at a moment |
//! | `history` | the same over the last ten minutes |
//! | `watch` | the thread that looks at them, and notes what becomes of VMs |
//! | `stream` | what a browser is told from now on, as events |
//! | `assets` | the page itself, which is in this program |
//! | `serve` | requests, and which of them are refused |
//!
//! It only reads. Whoever may connect to the address may read, so that is one of the host's loopback. What guests say is sent as JSON, and the page shows it as
//! text.

mod assets;
mod figures;
mod history;
mod serve;
mod stream;
mod watch;

#[cfg(test)]
mod browser_test;
#[cfg(test)]
mod page_test;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::serve::listen;
use self::watch::Watch;
use crate::fault::{Context, Fault, Result};
use crate::host::Host;

/// Threads that may block at once, each while something is read for one browser.
const MOST_BLOCKED: usize = 4;
/// What connections may still take when the page ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// A running page. It ends when it is dropped.
pub struct Page {
    address: SocketAddr,
    watch: Arc<Watch>,
    thread: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

impl Page {
    /// Serves the page of a host at an address of its loopback; port 0 is any that is free.
    ///
    /// # Errors
    /// If the address is no loopback address or is taken, or if there is no thread.
    pub fn start(host: &Arc<Host>, address: SocketAddr) -> Result<Self> {
        let named = format!("--ui {address}");
        if !address.ip().is_loopback() {
            return Err(Fault::new(format!(
                "{named}: the page asks nobody for a password, so allowed is a loopback address"
            ))
            .next(format!(
                "Say --ui 127.0.0.1:{0}; from elsewhere, reach it by `ssh -L {0}:127.0.0.1:{0}`.",
                address.port()
            )));
        }
        let listener = TcpListener::bind(address).context(&named)?;
        let address = listener.local_addr().context(&named)?;
        listener.set_nonblocking(true).context(&named)?;
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(MOST_BLOCKED).thread_name("page").enable_all();
        let runtime = builder.build().context("the threads of the page")?;
        let watch = Arc::new(Watch::new(Arc::clone(host)));
        {
            let _entered = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).context(&named)?;
            runtime.spawn(listen(Arc::clone(&watch), listener));
        }
        let watches = Arc::clone(&watch);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || watches.run());
        let thread = Some(thread.context("a thread")?);
        Ok(Self { address, watch, thread, runtime: Some(runtime) })
    }

    /// Where it is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.watch.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(FAREWELL);
        }
    }
}
