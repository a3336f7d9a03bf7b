//! What all connections and orders share.

use std::sync::Arc;
use std::time::Duration;

use super::certificates::Certificates;
use super::counts::Counts;
use super::pool::Pool;
use super::routes::{Routes, check_name};
use super::store::Store;
use super::turns::Turns;

/// Where the edge says what a person may want to know, a line at a time.
pub type Say = Arc<dyn Fn(String) + Send + Sync>;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Connections at once, and requests at once.
    pub connections: usize,
    /// Connections at once, and requests at once, of one address, or of one network of 64 bits by IPv6.
    pub of_one_address: usize,
    /// For TLS to be set up, and for the head of a request to come.
    pub head: Duration,
    /// For a byte to move, on any connection.
    pub idle: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        let (head, idle) = (Duration::from_secs(10), Duration::from_secs(300));
        Self { connections: 8192, of_one_address: 256, head, idle }
    }
}

/// One edge, as one of its threads has it.
#[derive(Clone)]
pub struct Shared {
    pub routes: Arc<dyn Routes>,
    pub certificates: Arc<Certificates>,
    pub store: Arc<Store>,
    /// Of connections.
    pub counts: Arc<Counts>,
    /// Of requests: one connection of HTTP/2 has many.
    pub requests: Arc<Counts>,
    pub turns: Arc<Turns>,
    pub pool: Arc<Pool>,
    pub limits: EdgeLimits,
    /// As clients see it.
    pub https_port: u16,
    pub say: Say,
}

impl Shared {
    /// Shows the kept certificates of names that have none yet.
    pub fn show_kept(&self) {
        for name in self.routes.names() {
            if check_name(&name).is_err() || self.certificates.validity(&name).is_some() {
                continue;
            }
            let kept = self.store.certificate(&name).map_err(|why| why.to_string());
            let shown = kept.and_then(|kept| kept.map_or(Ok(()), |kept| self.certificates.add(&name, &kept)));
            shown.unwrap_or_else(|why| (self.say)(why));
        }
    }
}
