//! Volumes of which another host has a copy that follows.
//!
//! | File | What it is |
//! |---|---|
//! | `frames` | what is said on the stream between the hosts |
//! | `files` | the files of a volume's snapshots, as bytes |
//! | `parts` | what has come of a copy, and is no part of it yet |
//! | `send` | the side that has the volume |
//! | `receive` | the side that has the copy |
//! | `replicate` | snapshots that are taken to be sent, and what is known of the copies |
//! | `follow` | VMs that read a copy, and go over to newer ones |
//! | `promote` | a copy that becomes the volume |
//!
//! A volume's snapshots are files that are never written to again, each over the one before it. So what has changed since the copy has
//! heard last is in a few of them, which are sent as they are: ciphertext, in pieces without holes. The copy has the same files under the same numbers. It is as
//! it was until all of them are there, open, and written down at once.

mod files;
mod follow;
mod frames;
mod parts;
mod promote;
mod receive;
mod replicate;
mod send;

#[cfg(test)]
mod replica_test;
#[cfg(test)]
mod unfinished_test;

pub use follow::Follower;
pub use parts::sweep;
pub use promote::promote;
pub use receive::receive;
#[cfg(test)]
pub use replicate::Nowhere;
pub use replicate::{Replicator, To};
