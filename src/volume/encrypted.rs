//! The layer that encrypts what goes to a backend, and decrypts what comes from it.

use std::collections::VecDeque;
use std::io;

use super::cipher::Cipher;
use super::key::Key;
use super::luks::Data;
use crate::block::{ByteRange, DiskBackend, DiskInfo, DiskStatus, Done, Operation, Slab, Tag};
use crate::error::Result;
use crate::event::{Event, Io, Wants};
use crate::memory::{Buffer, HostBuffer};
use crate::meter::{Counter, Meter};

/// The most operations in flight: more than any disk has.
const IN_FLIGHT: usize = 1024;

/// A volume's data, decrypted, as a disk backend. [`Volume::into_backend`](super::Volume::into_backend) makes it.
///
/// Ciphertext is read into the host's memory and decrypted there, so the guest neither sees nor changes it under way; plain text is copied
/// out of the guest before it is encrypted, so what is written is one text. The work is done on the I/O thread that owns the disk.
pub struct Encrypted<B> {
    below: B,
    cipher: Cipher,
    data: Data,
    discard: bool,
    in_flight: Slab<Asked>,
    /// For when the thread has no buffer to lend: so there is always something in flight to wait for.
    reserve: Option<HostBuffer>,
    refused: VecDeque<Done>,
    /// Bytes that were encrypted, and decrypted.
    encrypted: Counter,
    decrypted: Counter,
}

/// What the caller asked for.
struct Asked {
    tag: Tag,
    operation: Operation,
    uses_reserve: bool,
}

impl<B: DiskBackend> Encrypted<B> {
    /// Encrypts all of a backend, by a [key of data](Key::of_data), without a header: for a medium that is no file, and for who keeps keys
    /// elsewhere. It is what dm-crypt does in its plain mode with `aes-xts-plain64`.
    ///
    /// `sector_size` is 512, 1024, 2048 or 4096 bytes; the disk has blocks of at least that size.
    ///
    /// # Errors
    /// [`ErrorKind::Volume`](crate::ErrorKind::Volume) for another size, a key that is not 32 or 64 bytes, or if the process may not lock
    /// memory.
    pub fn over(below: B, key: &Key, sector_size: usize) -> Result<Self> {
        let cipher = Cipher::new(key.expose(), sector_size)?;
        let data = Data { offset: 0, len: None, first_unit: 0, sector_size };
        Ok(Self::new(below, cipher, data, true))
    }

    /// `discard` says whether the guest may give space back.
    pub(super) fn new(below: B, cipher: Cipher, data: Data, discard: bool) -> Self {
        let (in_flight, refused) = (Slab::new(IN_FLIGHT), VecDeque::new());
        let (encrypted, decrypted) = (Counter::new(), Counter::new());
        let mut layer = Self { below, cipher, data, discard, in_flight, reserve: None, refused, encrypted, decrypted };
        layer.reserve = Some(HostBuffer::new(usize::try_from(layer.info().max_transfer).unwrap_or_default()));
        layer
    }

    /// What to ask of the backend below, and whether the reserve is in it; `None` if no buffer is free.
    fn translate(&mut self, io: &mut Io, operation: &Operation) -> io::Result<Option<(Operation, bool)>> {
        let (at, len, stable) = match operation {
            Operation::Read { at, into } => (*at, into.len(), None),
            Operation::Write { at, from, stable } => (*at, from.len(), Some(*stable)),
            // Zeroes are encrypted like all data.
            Operation::WriteZeroes { range, stable, .. } => (range.at, range.len, Some(*stable)),
            Operation::Flush => return Ok(Some((Operation::Flush, false))),
            Operation::Discard(range) => {
                let range = ByteRange { at: self.data.below(range.at), len: range.len };
                return Ok(Some((Operation::Discard(range), false)));
            }
        };
        let Some((mut buffer, uses_reserve)) = self.buffer(io, len) else { return Ok(None) };
        let below = self.data.below(at);
        let Some(stable) = stable else {
            return Ok(Some((Operation::Read { at: below, into: Buffer::Host(buffer) }, uses_reserve)));
        };
        if let Err(e) = self.fill(at, operation, &mut buffer) {
            self.reserve = uses_reserve.then_some(buffer).or(self.reserve.take());
            return Err(e);
        }
        self.encrypted.add(len);
        io.charge(len);
        Ok(Some((Operation::Write { at: below, from: Buffer::Host(buffer), stable }, uses_reserve)))
    }

    /// A buffer of this length, and whether it is the reserve.
    fn buffer(&mut self, io: &mut Io, len: u64) -> Option<(HostBuffer, bool)> {
        let len = usize::try_from(len).ok()?;
        let (mut buffer, uses_reserve) = match io.bounce(len) {
            Some(lent) => (lent, false),
            None => (self.reserve.take_if(|kept| len <= kept.capacity())?, true),
        };
        buffer.resize(len);
        Some((buffer, uses_reserve))
    }

    /// Fills a buffer with what an operation writes at `at`, encrypted.
    fn fill(&self, at: u64, operation: &Operation, buffer: &mut [u8]) -> io::Result<()> {
        for (offset, piece) in pieces(buffer) {
            match operation {
                Operation::Write { from, .. } => from.copy_out(offset, piece).map_err(io::Error::other)?,
                _ => piece.fill(0),
            }
            self.cipher.encrypt(self.data.for_cipher(at.saturating_add(offset)), piece);
        }
        Ok(())
    }

    /// The backend below is done: what was read goes to the caller.
    fn finish(&self, io: &mut Io, asked: &mut Asked, below: &mut Operation) -> io::Result<()> {
        let Operation::Read { at, into } = &mut asked.operation else { return Ok(()) };
        match below {
            Operation::Read { into: Buffer::Host(buffer), .. } if buffer.len() as u64 == into.len() => {
                for (offset, piece) in pieces(buffer) {
                    self.cipher.decrypt(self.data.for_cipher(at.saturating_add(offset)), piece);
                    into.copy_in(offset, piece).map_err(io::Error::other)?;
                }
                self.decrypted.add(into.len());
                io.charge(into.len());
                Ok(())
            }
            _ => Err(io::Error::other("the backend below gave another operation back")),
        }
    }

    fn keep_reserve(&mut self, asked: &Asked, below: Operation) {
        let (Operation::Read { into: data, .. } | Operation::Write { from: data, .. }) = below else { return };
        if let (true, Buffer::Host(buffer)) = (asked.uses_reserve, data) {
            self.reserve = Some(buffer);
        }
    }
}

/// A piece is copied and changed while it is in the CPU's first cache. Each sector fits into one.
const PIECE: usize = 4096;

/// A buffer in pieces, with their places.
fn pieces(buffer: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    (0..).step_by(PIECE).zip(buffer.chunks_mut(PIECE))
}

impl<B: DiskBackend> DiskBackend for Encrypted<B> {
    fn info(&self) -> DiskInfo {
        let mut info = self.below.info();
        let sector = u32::try_from(self.data.sector_size).unwrap_or(info.block_size);
        info.capacity = self.data.capacity(info.capacity);
        info.block_size = info.block_size.max(sector);
        // The largest buffer is a multiple of each size of blocks; zeroes are written from one, too.
        info.max_transfer = info.max_transfer.min(HostBuffer::MAX_LEN as u64);
        info.max_range = info.max_range.min(info.max_transfer);
        info.discard &= self.discard;
        info.write_zeroes = true;
        info
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.below.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        if self.in_flight.is_full() {
            return Err(operation);
        }
        let (below, uses_reserve) = match self.translate(io, &operation) {
            Ok(Some(translated)) => translated,
            Ok(None) => return Err(operation),
            Err(error) => {
                self.refused.push_back(Done::new(tag, operation, Err(error)));
                return Ok(());
            }
        };
        let asked = Asked { tag, operation, uses_reserve };
        let own = self.in_flight.insert(asked).map_err(|asked| asked.operation)?;
        let Err(below) = self.below.submit(io, own, below) else { return Ok(()) };
        let Some(asked) = self.in_flight.remove(own) else { return Ok(()) };
        self.keep_reserve(&asked, below);
        Err(asked.operation)
    }

    fn commit(&mut self, io: &mut Io) {
        self.below.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        if let Some(done) = self.refused.pop_front() {
            return Some(done);
        }
        let Done { tag, operation: mut below, mut result, .. } = self.below.completed(io)?;
        let Some(mut asked) = self.in_flight.remove(tag) else {
            // A rule was broken below. Nobody above knows this tag, so the disk will say so.
            return Some(Done::new(Tag::from_bits(u64::MAX), below, result));
        };
        if result.is_ok() {
            result = self.finish(io, &mut asked, &mut below);
        }
        self.keep_reserve(&asked, below);
        Some(Done::new(asked.tag, asked.operation, result))
    }

    fn cancel(&mut self, io: &mut Io) {
        self.below.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.below.refresh(io);
    }

    fn wants(&self, wants: &mut Wants) {
        self.below.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.below.woken(io, event);
    }

    fn status(&self) -> DiskStatus {
        self.below.status()
    }

    fn metrics(&self, meter: &mut Meter) {
        meter.counter("encrypted_bytes", &self.encrypted);
        meter.counter("decrypted_bytes", &self.decrypted);
        self.below.metrics(meter);
    }
}
