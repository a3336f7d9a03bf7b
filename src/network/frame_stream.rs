//! Frames over a byte stream, each behind its length: what passt, and QEMU's `-netdev stream`, speak.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Interest, Io, Token, Wants};
use crate::meter::{Counter, Meter};
use crate::net::{Delivery, Need, Nic, NicBackend, NicInfo, RxBatch, TxBatch, VnetHeader};
use crate::sys::{Attempt, Stream, connect_now};

/// In front of each frame: its length, the highest byte first.
const LENGTH: usize = 4;
const ETHERNET: usize = 14;
/// The largest IP packet behind an Ethernet header with a VLAN tag.
const LARGEST: usize = 65553;
/// What is read at once.
const ROOM: usize = 2 * (LENGTH + LARGEST);
/// To drop what is no frame takes about as long as copying so many bytes.
const DROP_CHARGE: u64 = 64;
/// So much of what the guest sends waits for the other side, and one frame more.
const WAITING: usize = 1 << 16;

/// The backend of a card whose frames go over a stream to another process on this host, each behind its length in four bytes, the highest
/// first. passt and QEMU's `-netdev stream` have the other end of such streams.
///
/// The other process is not trusted: what it sends that is no frame is dropped, and a length that no frame has ends the link. When the
/// link ends, by whomever, the guest sees that its cable is out, for good. A process that takes nothing holds up this card alone, which
/// keeps 129 KiB for it at the most.
///
/// ```no_run
/// use vmcell::network::FrameStream;
///
/// # fn main() -> vmcell::Result<()> {
/// let nic = FrameStream::connect("/run/user/1000/passt.socket")?.into_nic();
/// # Ok(())
/// # }
/// ```
pub struct FrameStream {
    stream: Stream,
    token: Option<Token>,
    /// What was read, of which the part from `begin` to `end` is not delivered yet.
    room: Box<[u8]>,
    begin: usize,
    end: usize,
    /// What waits to be written, from `sent` on.
    waiting: Vec<u8>,
    sent: usize,
    /// So much is left of a frame whose beginning was written.
    unsent: usize,
    readable: bool,
    is_over: bool,
    counters: Counters,
    /// What lives as long as the stream.
    _keeps: Option<Box<dyn Send>>,
}

#[derive(Default)]
struct Counters {
    dropped: Counter,
    ended: Counter,
}

impl FrameStream {
    /// Takes a stream that is connected.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] if the host cannot watch it.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let failed = |cause| Error::new(ErrorKind::Network, "cannot watch a stream of frames").with_source(cause);
        let stream = Stream::over(File::from(OwnedFd::from(stream))).map_err(failed)?;
        Ok(Self {
            stream,
            token: None,
            room: vec![0; ROOM].into(),
            begin: 0,
            end: 0,
            waiting: Vec::new(),
            sent: 0,
            unsent: 0,
            readable: true,
            is_over: false,
            counters: Counters::default(),
            _keeps: None,
        })
    }

    /// Connects to the socket at `path`, of a passt that runs already, for instance. Does not wait until the other side accepts.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] if nobody listens there, or the path is longer than 107 bytes.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |cause: io::Error| {
            let message = format!("cannot connect a card to the socket {}", path.display());
            Error::new(ErrorKind::Network, message).with_source(cause)
        };
        Self::new(connect_now(path).map_err(failed)?)
    }

    /// Makes the card. It never blocks, so it shares the VM's I/O thread.
    pub fn into_nic(self) -> Nic {
        Nic::backend(self).never_blocks()
    }

    /// Has something live for as long as the stream.
    pub(super) fn keep(mut self, what: impl Send + 'static) -> Self {
        self._keeps = Some(Box::new(what));
        self
    }

    /// The frame that is next, without its length, if all of it is there.
    fn frame(&mut self) -> Option<std::ops::Range<usize>> {
        let read = self.room.get(self.begin..self.end)?;
        let len = u32::from_be_bytes(*read.first_chunk()?);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !(1..=LARGEST).contains(&len) {
            self.is_over = true;
            return None;
        }
        let begin = self.begin.saturating_add(LENGTH);
        let end = begin.saturating_add(len);
        (end <= self.end).then_some(begin..end)
    }

    /// Reads more behind what is there.
    fn read(&mut self) {
        self.room.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end.saturating_sub(self.begin));
        let Some(room) = self.room.get_mut(self.end..) else { return };
        match self.stream.try_read(room) {
            Ok(Attempt::Moved(0)) | Err(_) => self.is_over = true,
            Ok(Attempt::Moved(len)) => self.end = self.end.saturating_add(len),
            Ok(Attempt::NotNow | Attempt::MayWait) => self.readable = false,
        }
    }

    /// Writes what waits, as far as the other side takes it: frame by frame, since older versions of passt lose their place if what they read
    /// ends within a length.
    fn flush(&mut self) {
        while let Some(bytes @ [_, ..]) = self.waiting.get(self.sent..self.sent.saturating_add(self.rest_of_frame())) {
            match self.stream.try_write(bytes) {
                Ok(Attempt::Moved(len)) => {
                    self.unsent = bytes.len().saturating_sub(len);
                    self.sent = self.sent.saturating_add(len);
                }
                Ok(Attempt::NotNow | Attempt::MayWait) => {
                    self.waiting.drain(..self.sent);
                    self.sent = 0;
                    return;
                }
                Err(_) => {
                    self.is_over = true;
                    break;
                }
            }
        }
        self.waiting.clear();
        (self.sent, self.unsent) = (0, 0);
    }

    /// How much of the frame that is being written, or of the next one, is left.
    fn rest_of_frame(&self) -> usize {
        let next = self.waiting.get(self.sent..).and_then(<[u8]>::first_chunk);
        match next {
            _ if self.unsent > 0 => self.unsent,
            Some(len) => usize::try_from(u32::from_be_bytes(*len)).unwrap_or(0).saturating_add(LENGTH),
            None => 0,
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len().saturating_sub(self.sent) >= WAITING
    }

    /// Puts a frame behind what waits; says whether it was one.
    fn put(&mut self, frame: &crate::net::TxFrame) -> bool {
        let len = frame.len();
        let Some(size) = usize::try_from(len).ok().filter(|len| (ETHERNET..=LARGEST).contains(len)) else {
            return false;
        };
        let begin = self.waiting.len();
        self.waiting.extend(u32::try_from(size).unwrap_or_default().to_be_bytes());
        let data = self.waiting.len();
        self.waiting.resize(data.saturating_add(size), 0);
        let copied = self.waiting.get_mut(data..).is_some_and(|room| frame.data().copy_out(0, room).is_ok());
        if !copied {
            self.waiting.truncate(begin);
        }
        copied
    }

    /// Tells the guest, once, that the link is down.
    fn end_if_over(&mut self, io: &mut Io) {
        if self.is_over && self.counters.ended.get() == 0 {
            self.counters.ended.add(1);
            (self.begin, self.end, self.sent, self.unsent) = (0, 0, 0, 0);
            self.waiting = Vec::new();
            io.info_changed();
        }
    }
}

impl NicBackend for FrameStream {
    fn info(&self) -> NicInfo {
        NicInfo { link_up: !self.is_over, ..NicInfo::default() }
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, frames: &mut RxBatch) {
        while !self.is_over && !io.spent() {
            match self.frame() {
                Some(range) => {
                    let end = range.end;
                    let frame = self.room.get(range).unwrap_or_default();
                    if frame.len() < ETHERNET {
                        self.counters.dropped.add(1);
                        // Otherwise an end that sends nothing else would have all of this thread's time.
                        io.charge(DROP_CHARGE);
                    } else if frames.put(io, &VnetHeader::default(), frame) == Delivery::NoRoom {
                        break;
                    }
                    self.begin = end;
                }
                None if self.is_over || !self.readable => break,
                None => self.read(),
            }
        }
        self.end_if_over(io);
    }

    fn send(&mut self, io: &mut Io, frames: &mut TxBatch) {
        while let Some(frame) = frames.next(io) {
            if self.is_full() {
                self.flush();
            }
            // The frame stays the next one, which has the card wait for room.
            if self.is_full() {
                break;
            }
            // A link that has ended takes all frames, and they go nowhere.
            if self.is_over || !self.put(frame) {
                self.counters.dropped.add(1);
            }
            frames.done();
        }
        self.flush();
        self.end_if_over(io);
    }

    fn wants(&self, need: Need, wants: &mut Wants) {
        let (Some(token), Some(file), false) = (self.token, self.stream.polled(), self.is_over) else { return };
        let writes = !self.waiting.is_empty();
        match (need.room && !self.readable, writes) {
            (true, true) => wants.descriptor(token, file, Interest::Both),
            (true, false) => wants.descriptor(token, file, Interest::Readable),
            (false, true) => wants.descriptor(token, file, Interest::Writable),
            (false, false) => {}
        }
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        if self.token == Some(event.token) {
            self.readable |= event.is_readable() || event.is_hang_up();
            self.flush();
            self.end_if_over(io);
        }
    }

    fn metrics(&self, meter: &mut Meter) {
        meter.counter("stream_dropped", &self.counters.dropped);
        meter.counter("stream_ended", &self.counters.ended);
    }
}

impl fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "frame_stream_test.rs"]
mod tests;
