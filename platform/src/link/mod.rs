//! The link between the hosts of a mesh: TLS 1.3 over TCP, in which both sides show a certificate that the other one knows by its digest.
//!
//! | File | What it is |
//! |---|---|
//! | `identity` | a host's certificate and key, by which the others know it |
//! | `tls` | who is let in: certificates are compared by their digests |
//! | `message` | what hosts ask of each other, and what is answered |
//! | `framed` | a message on a stream, with a bound and a time limit |
//! | `client` | asks other hosts |
//! | `server` | answers them |
//!
//! A connection is one [`Request`]: a line of JSON. The answer is a line, too: [`Answer::Done`], [`Answer::Refused`], or [`Answer::Stream`],
//! after which both sides send bytes as they are.
//!
//! To ask: [`Link::ask`] for an answer, [`Link::stream`] for bytes, which come as one end of a Unix socket that any thread may read and write as
//! it likes. The end of what one side sends reaches the other one (`shutdown(Write)`). A link that breaks looks like an end, too, so
//! whatever is sent has to say how long it is, or be answered by a last line.
//!
//! To answer: a new variant of [`Request`], and what [`Serves::answer`] makes of it: [`Outcome::Done`] with a value, [`Outcome::Relay`] with a
//! socket whose bytes are passed on, or [`Outcome::Work`] with a function that gets the stream, and speaks on it until it returns.
//!
//! A peer gets as many connections and threads as `server` says, and no more. One that says nothing, or too much, loses its connection.

mod client;
mod framed;
mod identity;
#[cfg(test)]
mod link_test;
mod message;
mod server;
mod tls;

pub use client::{Link, Peer};
pub use identity::Identity;
pub use message::{Answer, Request};
pub use server::{Caller, Outcome, Serves};
