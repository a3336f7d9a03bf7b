//! Services: addresses that stand for several machines, which may be started when a packet comes.
//!
//! A flow to a service is one of its client's, in the client's own table, with the member that it was given to; so the table of a service
//! knows members alone, and nobody fills it. What waits for a member is held by the service, and carried on by a thread of the network's.

#[cfg(test)]
mod balance_test;
pub(super) mod balancer;
mod counters;
#[cfg(test)]
mod demand_test;
mod handle;
pub(super) mod held;
pub(super) mod keeper;
mod limits;
pub(super) mod member;
#[cfg(test)]
mod remote_test;
#[cfg(test)]
#[path = "rig_test.rs"]
mod rig;
mod rounds;

pub use handle::{Demand, Service, ServiceConfig, ServiceMember};
