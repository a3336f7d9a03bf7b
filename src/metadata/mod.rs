//! A metadata service for the guest, on its network card: a small web server at a link-local address, behind a TCP stack of its own
//! ([smoltcp](https://docs.rs/smoltcp)).
//!
//! It is a layer on the card's backend, so the network below sees none of it. All that a client in the guest does is bounded: its
//! connections, what each of them holds, how long a request is, and how long it may take.

mod answer;
mod connection;
mod counters;
mod document;
mod layer;
mod link;
mod request;
mod service;
mod stack;
mod token;

pub use service::Metadata;
#[cfg(feature = "test-util")]
pub(crate) use stack::Stack;
