//! A layer that encrypts a disk, over any backend, itself included.
//!
//! **The cipher is a toy.** It shows how a layer is built, and protects nobody's data: use a real one, such as AES-XTS.

use std::collections::VecDeque;
use std::io;

use vmcell::block::{DiskBackend, DiskInfo, DiskStatus, Done, Operation, Slab, Tag};
use vmcell::event::{Event, Io, Wants};
use vmcell::meter::{Counter, Meter};
use vmcell::{Buffer, HostBuffer};

/// The most operations in flight: more than any disk has.
const IN_FLIGHT: usize = 1024;

/// Adds pseudo-random bytes that depend on the key and on the place on the disk. A toy: see above.
#[derive(Clone, Copy)]
pub struct ToyCipher(pub u64);

impl ToyCipher {
    /// Encrypts bytes that lie at byte `at` of the disk, a multiple of 8.
    pub fn encrypt(self, at: u64, bytes: &mut [u8]) {
        self.apply(at, bytes, u8::wrapping_add);
    }

    /// The reverse of [`encrypt`](Self::encrypt).
    pub fn decrypt(self, at: u64, bytes: &mut [u8]) {
        self.apply(at, bytes, u8::wrapping_sub);
    }

    fn apply(self, at: u64, bytes: &mut [u8], change: fn(u8, u8) -> u8) {
        for (word, bytes) in (at / 8..).zip(bytes.chunks_mut(8)) {
            let mut pad = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.0;
            pad = (pad ^ pad >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            pad = (pad ^ pad >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.iter_mut().zip(pad.to_le_bytes()).for_each(|(byte, pad)| *byte = change(*byte, pad));
        }
    }
}

/// The layer. It works in the host's memory, so that the guest neither sees ciphertext nor changes it under way.
pub struct Encrypted<B> {
    below: B,
    cipher: ToyCipher,
    in_flight: Slab<Asked>,
    /// For when the thread has no buffer to lend: so there is always something in flight to wait for.
    reserve: Option<HostBuffer>,
    refused: VecDeque<Done>,
    /// Bytes that were encrypted or decrypted.
    bytes: Counter,
}

/// What the caller asked for.
struct Asked {
    tag: Tag,
    operation: Operation,
    uses_reserve: bool,
}

impl<B: DiskBackend> Encrypted<B> {
    pub fn new(below: B, cipher: ToyCipher) -> Self {
        let (in_flight, refused) = (Slab::new(IN_FLIGHT), VecDeque::new());
        let mut layer = Self { below, cipher, in_flight, reserve: None, refused, bytes: Counter::new() };
        layer.reserve = Some(HostBuffer::new(layer.info().max_transfer as usize));
        layer
    }

    /// What to ask of the backend below, and whether the reserve is in it; `None` if no buffer is free.
    fn translate(&mut self, io: &mut Io, operation: &Operation) -> io::Result<Option<(Operation, bool)>> {
        let (at, len, stable) = match operation {
            Operation::Read { at, into } => (*at, into.len() as usize, None),
            Operation::Write { at, from, stable } => (*at, from.len() as usize, Some(*stable)),
            // Zeroes are encrypted like all data.
            Operation::WriteZeroes { range, stable, .. } => (range.at, range.len as usize, Some(*stable)),
            Operation::Flush => return Ok(Some((Operation::Flush, false))),
            Operation::Discard(range) => return Ok(Some((Operation::Discard(*range), false))),
            // One that is newer than this layer might carry plain text.
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let lent = io.bounce(len);
        let uses_reserve = lent.is_none();
        let reserve = |kept: &mut Option<HostBuffer>| kept.take_if(|kept| len <= kept.capacity());
        let Some(mut buffer) = lent.or_else(|| reserve(&mut self.reserve)) else { return Ok(None) };
        buffer.resize(len);
        let Some(stable) = stable else {
            return Ok(Some((Operation::Read { at, into: Buffer::Host(buffer) }, uses_reserve)));
        };
        match operation {
            Operation::Write { from, .. } => from.copy_out(0, &mut buffer).map_err(io::Error::other)?,
            _ => buffer.fill(0),
        }
        self.cipher.encrypt(at, &mut buffer);
        self.bytes.add(len as u64);
        io.charge(len as u64);
        Ok(Some((Operation::Write { at, from: Buffer::Host(buffer), stable }, uses_reserve)))
    }

    /// The backend below is done: what was read goes to the caller.
    fn finish(&self, io: &mut Io, asked: &mut Asked, below: &mut Operation) -> io::Result<()> {
        let Operation::Read { at, into } = &mut asked.operation else { return Ok(()) };
        match below {
            Operation::Read { into: Buffer::Host(buffer), .. } if buffer.len() as u64 == into.len() => {
                self.cipher.decrypt(*at, buffer);
                self.bytes.add(into.len());
                io.charge(into.len());
                into.copy_in(0, buffer).map_err(io::Error::other)
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

impl<B: DiskBackend> DiskBackend for Encrypted<B> {
    fn info(&self) -> DiskInfo {
        let mut info = self.below.info();
        // The largest buffer is a multiple of every block size; zeroes are written from one, too.
        info.max_transfer = info.max_transfer.min(HostBuffer::MAX_LEN as u64);
        info.max_range = info.max_range.min(info.max_transfer);
        info
    }

    fn attach(&mut self, io: &mut Io) -> vmcell::Result<()> {
        self.below.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> Result<(), Operation> {
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
        meter.counter("cipher_bytes", &self.bytes);
        self.below.metrics(meter);
    }
}
