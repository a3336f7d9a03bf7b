//! What a participant waits for.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use super::token::Token;
use crate::sys::Watch;

/// What keeps a watched descriptor open.
pub(super) type Source = Arc<dyn AsFd + Send + Sync>;

/// What a participant waits for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interest {
    /// It waits until there is something to read.
    Readable,
    /// It waits until there is room to write.
    Writable,
    /// It waits for either.
    Both,
}

impl Interest {
    fn watch(self) -> Watch {
        let (readable, writable) = match self {
            Self::Readable => (true, false),
            Self::Writable => (false, true),
            Self::Both => (true, true),
        };
        Watch { readable, writable, edge: false }
    }
}

/// The list of what a participant waits for. It starts empty after each turn, and the participant names everything that it waits
/// for now; anything that it does not name is no longer waited for. Wakers need not be named.
///
/// ```
/// use std::net::UdpSocket;
/// use std::sync::Arc;
/// use std::time::Instant;
///
/// use vmcell::event::{Interest, Token, Wants};
///
/// struct Backend {
///     socket: Arc<UdpSocket>,
///     readable: Token,
///     retransmit: Option<(Token, Instant)>,
/// }
///
/// impl Backend {
///     fn wants(&self, wants: &mut Wants) {
///         wants.descriptor(self.readable, &self.socket, Interest::Readable);
///         if let Some((token, at)) = self.retransmit {
///             wants.deadline(token, at);
///         }
///     }
/// }
/// ```
#[derive(Default)]
pub struct Wants {
    pub(super) descriptors: Vec<Descriptor>,
    pub(super) deadline: Option<(Instant, Token)>,
    pub(super) again: bool,
    /// Another thread of ours works for it.
    pub(super) lets_work: bool,
}

/// A descriptor as it is, or is to be, watched.
pub(super) struct Descriptor {
    pub(super) token: Token,
    pub(super) fd: RawFd,
    pub(super) watch: Watch,
    /// Names this registration to the kernel; new where it is not in use yet.
    pub(super) key: u32,
    /// Keeps it open.
    pub(super) _source: Source,
    pub(super) change: Change,
}

/// What is to be done about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was watched, and has not been named again.
    Remove,
    /// It is watched as it was.
    Keep,
    Add,
    Modify,
}

impl Wants {
    /// Waits for a descriptor, which is kept open for as long as it is wanted. It must be one that can be polled, which a
    /// regular file cannot.
    ///
    /// A token stands for one open descriptor at a time: another one under the same token takes the place of the first.
    pub fn descriptor<T>(&mut self, token: Token, source: &Arc<T>, interest: Interest)
    where
        T: AsFd + Send + Sync + 'static,
    {
        self.watch(token, source, interest.watch());
    }

    /// Waits for a descriptor to change, rather than for as long as it is ready: the other side's being gone is one event and not one
    /// after the other. What is so when it is named first counts as a change.
    pub(crate) fn change<T>(&mut self, token: Token, source: &Arc<T>, interest: Interest)
    where
        T: AsFd + Send + Sync + 'static,
    {
        self.watch(token, source, Watch { edge: true, ..interest.watch() });
    }

    /// Waits for an eventfd without ever reading it: one event for each time that it is signalled, or for several together.
    pub(crate) fn doorbell<T>(&mut self, token: Token, source: &Arc<T>)
    where
        T: AsFd + Send + Sync + 'static,
    {
        self.watch(token, source, Watch { edge: true, ..Watch::READABLE });
    }

    fn watch<T>(&mut self, token: Token, source: &Arc<T>, watch: Watch)
    where
        T: AsFd + Send + Sync + 'static,
    {
        let fd = source.as_fd().as_raw_fd();
        let known = self.descriptors.iter_mut().find(|known| known.token == token && known.fd == fd);
        match known {
            Some(known) if known.change == Change::Add => known.watch = watch,
            Some(known) if known.watch == watch => known.change = Change::Keep,
            Some(known) => {
                known.watch = watch;
                known.change = Change::Modify;
            }
            None => {
                let source: Source = source.clone();
                let change = Change::Add;
                self.descriptors.push(Descriptor { token, fd, watch, key: 0, _source: source, change });
            }
        }
    }

    /// Waits until the moment `at`. If a participant and its layers name several deadlines, only the earliest is reported, and
    /// only once: after that turn they are asked again, so a deadline that still matters is named again. One that has passed
    /// already is reported soon.
    pub fn deadline(&mut self, token: Token, at: Instant) {
        if self.deadline.is_none_or(|(earliest, _)| at < earliest) {
            self.deadline = Some((at, token));
        }
    }

    /// Asks for another turn after the others have had theirs, whether or not anything happens.
    pub fn again(&mut self) {
        self.again = true;
    }

    /// Another thread works for this participant and will wake it: that thread needs a CPU more than one that looks for something
    /// to do.
    pub(crate) fn lets_work(&mut self) {
        self.lets_work = true;
    }

    /// Whether another turn was asked for since the last call of this.
    pub(crate) fn take_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// Before a participant is asked: all is to be named again.
    pub(super) fn begin(&mut self) {
        self.deadline = None;
        self.again = false;
        self.lets_work = false;
        for descriptor in &mut self.descriptors {
            descriptor.change = Change::Remove;
        }
    }
}
