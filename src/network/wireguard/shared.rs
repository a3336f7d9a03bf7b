//! What the handles of a tunnel and its thread share.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::config::PeerConfig;
use super::counters::{Counters, PeerFigures};
use super::key::PublicKey;
use crate::error::Result;
use crate::event::Waker;
use crate::sys::lock;
use crate::sys::sync::Mutex;
use crate::sys::sync::mpsc::SyncSender;

pub(super) struct Shared {
    commands: Mutex<VecDeque<Command>>,
    pub(super) figures: Mutex<HashMap<PublicKey, Arc<PeerFigures>>>,
    pub(super) counters: Counters,
    pub(super) waker: Arc<OnceLock<Waker>>,
}

/// What is asked of the thread. Each is waited for, or is the answer to a question, and so they are few.
pub(super) enum Command {
    Add(Box<PeerConfig>, SyncSender<Result<()>>),
    Remove(PublicKey, SyncSender<bool>),
    Answer(PublicKey, Option<Box<PeerConfig>>),
}

impl Shared {
    pub(super) fn new(waker: Arc<OnceLock<Waker>>, counters: Counters) -> Self {
        Self { commands: Mutex::default(), figures: Mutex::default(), counters, waker }
    }

    pub(super) fn post(&self, command: Command) {
        lock(&self.commands).push_back(command);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(super) fn next(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }
}

/// A peer that has begun a handshake and is not known. [`accept`](Self::accept) it or [`refuse`](Self::refuse) it, now or later, on any thread;
/// one that is dropped is refused.
///
/// The key is what the sender claims: that it is really the peer's is only known when the handshake has ended, so one that is
/// accepted and is an impostor is forgotten after 15 seconds.
pub struct UnknownPeer {
    pub(super) key: PublicKey,
    pub(super) from: SocketAddr,
    pub(super) shared: Option<Arc<Shared>>,
}

impl UnknownPeer {
    /// The key that the peer says it has.
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Where its handshake came from.
    pub fn source(&self) -> SocketAddr {
        self.from
    }

    /// Makes it a peer, and answers its handshake. It is forgotten when it has had no key for
    /// [a while](super::TunnelLimits::forget_after), and asked about again the next time. Never blocks. A configuration that is refused, by a
    /// prefix that another peer has for instance, counts as a refusal of the peer.
    pub fn accept(mut self, config: PeerConfig) {
        self.answer(Some(Box::new(config)));
    }

    /// Leaves its handshake without an answer. It is not asked about again for [a while](super::TunnelLimits::refused_for). Never blocks.
    pub fn refuse(self) {}

    fn answer(&mut self, answer: Option<Box<PeerConfig>>) {
        if let Some(shared) = self.shared.take() {
            shared.post(Command::Answer(self.key, answer));
        }
    }
}

impl Drop for UnknownPeer {
    fn drop(&mut self) {
        self.answer(None);
    }
}

impl std::fmt::Debug for UnknownPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnknownPeer").field("key", &self.key).field("from", &self.from).finish_non_exhaustive()
    }
}
