//! The layer as a disk backend: reads come from where the map says, writes go into clusters of the layer's own file.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::blocks::Blocks;
use super::entry::{BLOCK, CLUSTER};
use super::flush::{Asked, Flush, Step};
use super::header::Header;
use super::map::{Image, Map, RunPlace, parts};
use super::operation::{fill_with_zeroes, host_buffer, moved, same, unknown};
use super::page::PAGE;
use super::settled::Settled;
use super::space::{Space, ranges};
use crate::block::{ByteRange, DiskBackend, DiskInfo, DiskStatus, Done, Operation, Slab, Tag};
use crate::error::Result;
use crate::event::{Event, Io, Token, Wants};
use crate::memory::{Buffer, HostBuffer};
use crate::meter::Meter;

/// The most operations in flight below: more than any disk has, and some of our own.
const IN_FLIGHT: usize = 1280;
/// Pages of the map that are written at once.
const PAGES_AT_ONCE: usize = 16;
/// So many changed pages are written although nobody asks for a flush, and at so many nothing more is written before they are: a flush
/// begins with a copy of them all, which is to take less than a turn.
const MANY_DIRTY: usize = 64;
const MOST_DIRTY: usize = 256;
/// What has changed is stable after this time, although nobody asks for it.
const LATEST: Duration = Duration::from_millis(200);

/// A copy-on-write layer: what is written goes into `top`, what was never written is read from `base`, which is only read.
pub(crate) struct Layer<T: DiskBackend, B> {
    /// Writes what is not in the file yet when the layer is dropped.
    keeper: Option<Box<dyn Blocks + Send>>,
    top: T,
    base: B,
    header: Header,
    map: Map,
    space: Space,
    on_top: Slab<OnTop>,
    on_base: Slab<OnBase>,
    ready: VecDeque<Done>,
    /// Operations whose data lie in several places. They are carried out one after the other, piece by piece.
    slow: VecDeque<Slow>,
    /// For the pieces; it is away while one is under way.
    buffer: Option<HostBuffer>,
    /// The base is to be flushed once, since it was written to before this layer was put on top of it. Whoever is told of that.
    unsettled: Option<Settled>,
    flush: Option<Flush>,
    /// Whoever waits for the next flush.
    asked: Vec<Asked>,
    pages: Vec<HostBuffer>,
    /// Reads of clusters in flight, by the epoch in which they began: a cluster that was freed then may be read still.
    reading: BTreeMap<u64, usize>,
    epoch: u64,
    /// Clusters that are free once nobody reads them any more, by the epoch of their end.
    held: VecDeque<(u64, Vec<u32>)>,
    /// Clusters whose place is given back to the host, before they are used again.
    punching: VecDeque<(ByteRange, Vec<u32>)>,
    is_punching: bool,
    /// A turn has ended in the middle of what need not wait.
    is_unfinished: bool,
    /// A flush that nobody asked for has failed: the next one that is asked for says so, and none begins unasked before.
    lost: Option<io::Error>,
    /// When what has changed is flushed although nobody asks.
    due: Option<Instant>,
    token: Option<Token>,
    base_first: bool,
}

/// What an operation below is for; a read of clusters has its epoch.
enum OnTop {
    Read { tag: Tag, at: u64, epoch: u64 },
    Write { tag: Tag, at: u64, len: u64, stable: bool },
    Piece(Option<u64>),
    Sync,
    Page(Image),
    Punch,
}

enum OnBase {
    Read { tag: Tag },
    Piece,
    Sync,
}

struct Slow {
    tag: Tag,
    operation: Operation,
    done: u64,
    /// The length of the piece that is under way.
    piece: u64,
}

impl Slow {
    fn at(&self) -> u64 {
        match &self.operation {
            Operation::Read { at, .. } | Operation::Write { at, .. } => *at,
            _ => 0,
        }
    }

    fn len(&self) -> u64 {
        match &self.operation {
            Operation::Read { into: buffer, .. } | Operation::Write { from: buffer, .. } => buffer.len(),
            _ => 0,
        }
    }
}

impl<T: DiskBackend, B: DiskBackend> Layer<T, B> {
    pub(super) fn new(top: T, base: B, header: Header, map: Map, space: Space) -> Self {
        let mut layer = Self {
            keeper: None,
            top,
            base,
            header,
            map,
            space,
            on_top: Slab::new(IN_FLIGHT),
            on_base: Slab::new(IN_FLIGHT),
            ready: VecDeque::new(),
            slow: VecDeque::new(),
            buffer: None,
            unsettled: None,
            flush: None,
            asked: Vec::new(),
            pages: (0..PAGES_AT_ONCE).map(|_| HostBuffer::new(PAGE)).collect(),
            reading: BTreeMap::new(),
            epoch: 0,
            held: VecDeque::new(),
            punching: VecDeque::new(),
            is_punching: false,
            is_unfinished: false,
            lost: None,
            due: None,
            token: None,
            base_first: false,
        };
        layer.buffer = Some(HostBuffer::new(usize::try_from(layer.info().max_transfer).unwrap_or_default()));
        layer
    }

    /// Has the map kept by the file's data, opened a second time, if the layer is dropped before it was flushed: what was completed is there
    /// then, as on a plain file. The thread that drops it waits for that.
    pub(crate) fn kept_by(mut self, keeper: Box<dyn Blocks + Send>) -> Self {
        self.keeper = Some(keeper);
        self
    }

    pub(super) fn info_over(header: &Header, top: DiskInfo, base: Option<DiskInfo>) -> DiskInfo {
        let base = base.unwrap_or(top);
        let mut info = DiskInfo::new(header.capacity);
        let block = u32::try_from(BLOCK).unwrap_or(top.block_size);
        info.block_size = block.max(top.block_size).max(base.block_size);
        info.max_transfer = top.max_transfer.min(base.max_transfer).min(HostBuffer::MAX_LEN as u64);
        info.max_segments = top.max_segments.min(base.max_segments);
        info
    }

    /// Makes its base stable, which was written to until now and is attached, as this layer's own file is: with the next flush, and at once if
    /// nobody asks for one. Data written to either meanwhile do not wait for it.
    pub(super) fn settling(mut self, settled: Settled, io: &mut Io) -> Self {
        self.unsettled = Some(settled);
        self.token = Some(io.token());
        self.go_on(io);
        self.commit(io);
        self
    }

    /// What comes first of `at..at + len`, and how long that is.
    fn first_run(&self, at: u64, len: u64) -> (u64, RunPlace) {
        let run = self.map.first_run(at, len);
        let base = self.header.base_len();
        match run.place {
            RunPlace::Base if at >= base => (run.len, RunPlace::Zeroes),
            RunPlace::Base => (run.len.min(base.saturating_sub(at)), RunPlace::Base),
            place => (run.len, place),
        }
    }

    fn read(&mut self, io: &mut Io, tag: Tag, at: u64, into: Buffer) -> std::result::Result<(), Operation> {
        let len = into.len();
        let (run, place) = self.first_run(at, len);
        if run < len {
            let operation = Operation::Read { at, into };
            self.slow.push_back(Slow { tag, operation, done: 0, piece: 0 });
            return Ok(());
        }
        match place {
            RunPlace::Zeroes => {
                let mut operation = Operation::Read { at, into };
                let result = fill_with_zeroes(&mut operation, 0, len);
                io.charge(len);
                self.ready.push_back(Done::new(tag, operation, result));
                Ok(())
            }
            RunPlace::Base => {
                let own = self.on_base.insert(OnBase::Read { tag });
                let below = Operation::Read { at, into };
                let Ok(own) = own else { return Err(below) };
                let result = self.base.submit(io, own, below);
                result.inspect_err(|_| _ = self.on_base.remove(own))
            }
            RunPlace::Clusters(from) => {
                let own = self.on_top.insert(OnTop::Read { tag, at, epoch: self.epoch });
                let Ok(own) = own else { return Err(Operation::Read { at, into }) };
                let below = Operation::Read { at: self.header.data_at().saturating_add(from), into };
                match self.top.submit(io, own, below) {
                    Ok(()) => {
                        self.reads();
                        Ok(())
                    }
                    Err(below) => {
                        self.on_top.remove(own);
                        Err(moved(below, at))
                    }
                }
            }
        }
    }

    /// A read of clusters was begun.
    fn reads(&mut self) {
        let reads = self.reading.entry(self.epoch).or_default();
        *reads = reads.saturating_add(1);
    }

    fn has_read(&mut self, epoch: u64) {
        if let Some(reads) = self.reading.get_mut(&epoch) {
            *reads = reads.saturating_sub(1);
            if *reads == 0 {
                self.reading.remove(&epoch);
            }
        }
    }

    fn write(
        &mut self,
        io: &mut Io,
        tag: Tag,
        at: u64,
        from: Buffer,
        stable: bool,
    ) -> std::result::Result<(), Operation> {
        let len = from.len();
        let operation = Operation::Write { at, from, stable };
        if let (true, Some(lost)) = (self.map.dirty_pages() >= MOST_DIRTY, &self.lost) {
            let result = Err(same(lost));
            self.ready.push_back(Done::new(tag, operation, result));
            return Ok(());
        }
        if self.map.dirty_pages() >= MOST_DIRTY || self.on_top.is_full() {
            return Err(operation);
        }
        if !self.place(at, len) {
            // What was freed comes back once that is stable.
            let comes_back =
                self.space.has_freed() || self.flush.is_some() || !self.held.is_empty() || !self.punching.is_empty();
            if comes_back && self.lost.is_none() {
                self.begin_flush();
                self.go_on(io);
                self.commit(io);
                return Err(operation);
            }
            let full = io::Error::from(io::ErrorKind::StorageFull);
            self.ready.push_back(Done::new(tag, operation, Err(full)));
            return Ok(());
        }
        self.map.begin_write(at, len);
        let run = self.map.first_written_run(at, len);
        let Some((RunPlace::Clusters(place), true)) = run.map(|run| (run.place, run.len == len)) else {
            self.slow.push_back(Slow { tag, operation, done: 0, piece: 0 });
            return Ok(());
        };
        let own = self.on_top.insert(OnTop::Write { tag, at, len, stable });
        let below = match moved(operation, self.header.data_at().saturating_add(place)) {
            Operation::Write { at, from, .. } => Operation::Write { at, from, stable: false },
            other => other,
        };
        let refused = match own {
            Ok(own) => match self.top.submit(io, own, below) {
                Ok(()) => return Ok(()),
                Err(below) => {
                    self.on_top.remove(own);
                    below
                }
            },
            Err(_) => below,
        };
        let empty = self.map.end_write(at, len, false);
        self.space.put_aside(empty);
        match moved(refused, at) {
            Operation::Write { at, from, .. } => Err(Operation::Write { at, from, stable }),
            other => Err(other),
        }
    }

    /// Gives each cluster of the disk one in the file. Says whether there was room.
    fn place(&mut self, at: u64, len: u64) -> bool {
        for (index, ..) in parts(at, len) {
            if self.map.entry(index).cluster == 0 {
                // Those that are free still take space if the host does not get it back.
                match self.space.take(!self.top.info().discard) {
                    Some(cluster) => self.map.place(index, cluster),
                    None => return false,
                }
            }
        }
        true
    }

    /// Blocks are zeroes from now on, which is a change of the map alone.
    fn zero(
        &mut self,
        tag: Tag,
        operation: Operation,
        range: ByteRange,
        stable: bool,
    ) -> std::result::Result<(), Operation> {
        if self.map.dirty_pages() >= MOST_DIRTY {
            let Some(lost) = &self.lost else { return Err(operation) };
            let result = Err(same(lost));
            self.ready.push_back(Done::new(tag, operation, result));
            return Ok(());
        }
        let empty = self.map.zero(range.at, range.len);
        self.space.put_aside(empty);
        self.end(Asked { tag, operation }, stable, Ok(()));
        Ok(())
    }

    /// An operation has ended, but for being made stable if that is wanted.
    fn end(&mut self, Asked { tag, operation }: Asked, stable: bool, result: io::Result<()>) {
        if stable && result.is_ok() {
            self.asked.push(Asked { tag, operation });
            self.begin_flush();
        } else {
            self.ready.push_back(Done::new(tag, operation, result));
        }
    }

    fn begin_flush(&mut self) {
        if self.flush.is_none() {
            let (asked, pages, freed) = (std::mem::take(&mut self.asked), self.map.take_dirty(), self.space.freed());
            let first = if self.unsettled.is_some() { Step::Base } else { Step::Sync };
            self.flush = Some(Flush::new(first, asked, pages, self.epoch, freed));
            self.due = None;
            self.epoch = self.epoch.saturating_add(1);
        }
    }

    /// How much is in flight below.
    fn below(&self) -> usize {
        self.on_top.len().saturating_add(self.on_base.len())
    }

    /// Begins whatever can be begun below.
    fn go_on(&mut self, io: &mut Io) {
        if self.flush.is_none() && (!self.asked.is_empty() || self.is_to_flush_unasked()) {
            self.begin_flush();
        }
        self.go_on_with_flush(io);
        self.is_unfinished = false;
        while self.go_on_with_slow(io) {
            if io.spent() {
                self.is_unfinished = true;
                break;
            }
        }
        self.go_on_with_punching(io);
    }

    /// Whether so much has changed, or some of it so long ago, that it is to be stable although nobody asks.
    fn is_to_flush_unasked(&mut self) -> bool {
        if self.unsettled.is_some() && self.lost.is_none() {
            return true;
        }
        if self.map.dirty_pages() == 0 || self.lost.is_some() {
            self.due = None;
            return false;
        }
        let now = Instant::now();
        let due = *self.due.get_or_insert_with(|| now.checked_add(LATEST).unwrap_or(now));
        self.map.dirty_pages() >= MANY_DIRTY || due <= now
    }

    fn go_on_with_flush(&mut self, io: &mut Io) {
        let Some(flush) = &mut self.flush else { return };
        if flush.step() == Step::Base {
            let Ok(own) = self.on_base.insert(OnBase::Sync) else { return };
            match self.base.submit(io, own, Operation::Flush) {
                Ok(()) => flush.syncs(),
                Err(_) => _ = self.on_base.remove(own),
            }
        }
        if flush.step() == Step::Sync {
            let Ok(own) = self.on_top.insert(OnTop::Sync) else { return };
            match self.top.submit(io, own, Operation::Flush) {
                Ok(()) => flush.syncs(),
                Err(_) => _ = self.on_top.remove(own),
            }
        }
        while let Some(mut buffer) = self.pages.pop() {
            let Some(page) = flush.next_page() else {
                self.pages.push(buffer);
                return;
            };
            buffer.copy_from_slice(&*page.bytes);
            let at = self.header.slot_at(page.index.into(), page.slot());
            let below = Operation::Write { at, from: Buffer::Host(buffer), stable: false };
            let own = match self.on_top.insert(OnTop::Page(page)) {
                Ok(own) => own,
                Err(OnTop::Page(page)) => {
                    flush.put_back(page);
                    self.pages.extend(host_buffer(below));
                    return;
                }
                Err(_) => return,
            };
            if let Err(below) = self.top.submit(io, own, below) {
                if let Some(OnTop::Page(page)) = self.on_top.remove(own) {
                    flush.put_back(page);
                }
                self.pages.extend(host_buffer(below));
                return;
            }
        }
    }

    /// The next piece of the first of those that are carried out piece by piece. Says whether there may be another one at once.
    fn go_on_with_slow(&mut self, io: &mut Io) -> bool {
        if self.buffer.is_none() {
            return false;
        }
        let Some(front) = self.slow.front() else { return false };
        let (from, left) = (front.at().saturating_add(front.done), front.len().saturating_sub(front.done));
        let is_read = matches!(front.operation, Operation::Read { .. });
        let (len, place) = if is_read {
            self.first_run(from, left)
        } else {
            let run = self.map.first_written_run(from, left);
            run.map_or((left, RunPlace::Zeroes), |run| (run.len, run.place))
        };
        if is_read && place == RunPlace::Zeroes {
            let Some(front) = self.slow.front_mut() else { return false };
            let result = fill_with_zeroes(&mut front.operation, front.done, len);
            front.piece = len;
            io.charge(len);
            self.end_piece(result);
            return true;
        }
        let (Some(front), Some(mut buffer)) = (self.slow.front_mut(), self.buffer.take()) else { return false };
        front.piece = len.min(buffer.capacity() as u64);
        buffer.resize(usize::try_from(front.piece).unwrap_or_default());
        let below = match (&front.operation, place) {
            (Operation::Write { from, .. }, RunPlace::Clusters(place)) => {
                if let Err(e) = from.copy_out(front.done, &mut buffer) {
                    self.buffer = Some(buffer);
                    self.end_piece(Err(io::Error::other(e)));
                    return true;
                }
                io.charge(front.piece);
                let at = self.header.data_at().saturating_add(place);
                Operation::Write { at, from: Buffer::Host(buffer), stable: false }
            }
            (_, RunPlace::Clusters(place)) => {
                let at = self.header.data_at().saturating_add(place);
                Operation::Read { at, into: Buffer::Host(buffer) }
            }
            (Operation::Read { .. }, _) => {
                let below = Operation::Read { at: from, into: Buffer::Host(buffer) };
                self.read_piece_of_base(io, below);
                return false;
            }
            _ => {
                self.buffer = Some(buffer);
                self.end_piece(Err(io::Error::other("a cluster is missing")));
                return true;
            }
        };
        let refused = match self.on_top.insert(OnTop::Piece(is_read.then_some(self.epoch))) {
            Ok(own) => self.top.submit(io, own, below).inspect_err(|_| _ = self.on_top.remove(own)),
            Err(_) => Err(below),
        };
        if is_read && refused.is_ok() {
            self.reads();
        }
        self.buffer = refused.err().and_then(host_buffer);
        false
    }

    fn read_piece_of_base(&mut self, io: &mut Io, below: Operation) {
        let refused = match self.on_base.insert(OnBase::Piece) {
            Ok(own) => self.base.submit(io, own, below).inspect_err(|_| _ = self.on_base.remove(own)),
            Err(_) => Err(below),
        };
        self.buffer = refused.err().and_then(host_buffer);
    }

    /// A piece is done below: what was read goes to the caller.
    fn piece_done(&mut self, io: &mut Io, below: Operation, mut result: io::Result<()>) {
        let is_read = matches!(below, Operation::Read { .. });
        let buffer = host_buffer(below);
        if let (Some(front), Some(buffer), true, true) = (self.slow.front_mut(), &buffer, is_read, result.is_ok())
            && let Operation::Read { into, .. } = &mut front.operation
        {
            io.charge(front.piece);
            result = into.copy_in(front.done, buffer).map_err(io::Error::other);
        }
        self.buffer = buffer;
        self.end_piece(result);
    }

    fn end_piece(&mut self, result: io::Result<()>) {
        let Some(front) = self.slow.front_mut() else { return };
        front.done = front.done.saturating_add(std::mem::take(&mut front.piece));
        if result.is_ok() && front.done < front.len() {
            return;
        }
        let Some(slow) = self.slow.pop_front() else { return };
        self.end_slow(slow, result);
    }

    fn end_slow(&mut self, slow: Slow, result: io::Result<()>) {
        let (at, len) = (slow.at(), slow.len());
        let stable = match slow.operation {
            Operation::Write { stable, .. } => {
                let empty = self.map.end_write(at, len, result.is_ok());
                self.space.put_aside(empty);
                stable
            }
            _ => false,
        };
        self.end(Asked { tag: slow.tag, operation: slow.operation }, stable, result);
    }

    /// Gives the place of freed clusters back to the host, one range after the other; then they are free.
    fn go_on_with_punching(&mut self, io: &mut Io) {
        let oldest = self.reading.first_key_value().map(|(epoch, _)| *epoch);
        while let Some((epoch, clusters)) = self.held.pop_front() {
            if oldest.is_some_and(|oldest| oldest <= epoch) {
                self.held.push_front((epoch, clusters));
                break;
            }
            self.let_go(clusters);
        }
        if self.is_punching {
            return;
        }
        let Some((range, _)) = self.punching.front() else { return };
        let Ok(own) = self.on_top.insert(OnTop::Punch) else { return };
        match self.top.submit(io, own, Operation::Discard(*range)) {
            Ok(()) => self.is_punching = true,
            Err(_) => _ = self.on_top.remove(own),
        }
    }

    fn let_go(&mut self, clusters: Vec<u32>) {
        let info = self.top.info();
        let at_once = usize::try_from(info.max_range / CLUSTER).unwrap_or(usize::MAX);
        if !info.discard || at_once == 0 {
            return self.space.put_back(clusters);
        }
        self.punching.extend(ranges(clusters, self.header.data_at(), at_once));
    }

    fn end_flush(&mut self) {
        let Some(ended) = self.flush.take().map(Flush::end) else { return };
        let is_asked = !ended.asked.is_empty();
        // The kernel tells an error of its own writing once, to whoever asks first.
        let failed = ended.failed.or_else(|| self.lost.take_if(|_| is_asked));
        match &failed {
            None => {
                ended.pages.iter().for_each(|page| self.map.is_stable(page));
                if !ended.freed.is_empty() {
                    self.held.push_back((ended.epoch, ended.freed));
                }
            }
            Some(_) => {
                ended.pages.iter().for_each(|page| self.map.is_dirty(page));
                self.space.put_aside(ended.freed);
            }
        }
        for Asked { tag, operation } in ended.asked {
            let result = failed.as_ref().map_or(Ok(()), |e| Err(same(e)));
            self.ready.push_back(Done::new(tag, operation, result));
        }
        if !is_asked && failed.is_some() {
            self.lost = failed;
        }
    }

    fn base_synced(&mut self, result: io::Result<()>) {
        if let Some(settled) = self.unsettled.take() {
            settled.tell(result.as_ref().map_or_else(|e| Err(same(e)), |()| Ok(())));
            self.unsettled = result.is_err().then_some(settled);
        }
        if self.flush.as_mut().is_some_and(|flush| flush.base_synced(result)) {
            self.end_flush();
        }
    }

    fn top_done(&mut self, io: &mut Io, Done { tag, operation: below, result, .. }: Done) {
        match self.on_top.remove(tag) {
            Some(OnTop::Read { tag, at, epoch }) => {
                self.has_read(epoch);
                self.ready.push_back(Done::new(tag, moved(below, at), result));
            }
            Some(OnTop::Write { tag, at, len, stable }) => {
                let empty = self.map.end_write(at, len, result.is_ok());
                self.space.put_aside(empty);
                let operation = match moved(below, at) {
                    Operation::Write { at, from, .. } => Operation::Write { at, from, stable },
                    other => other,
                };
                self.end(Asked { tag, operation }, stable, result);
            }
            Some(OnTop::Piece(epoch)) => {
                epoch.into_iter().for_each(|epoch| self.has_read(epoch));
                self.piece_done(io, below, result);
            }
            Some(OnTop::Sync) => {
                if self.flush.as_mut().is_some_and(|flush| flush.synced(result)) {
                    self.end_flush();
                }
            }
            Some(OnTop::Page(page)) => {
                self.pages.extend(host_buffer(below));
                if self.flush.as_mut().is_some_and(|flush| flush.wrote(page, result)) {
                    self.end_flush();
                }
            }
            Some(OnTop::Punch) => {
                self.is_punching = false;
                // A hole that could not be made costs space, and nothing else.
                if let Some((_, clusters)) = self.punching.pop_front() {
                    self.space.put_back(clusters);
                }
            }
            None => self.ready.push_back(unknown(below, result)),
        }
    }

    fn base_done(&mut self, io: &mut Io, Done { tag, operation: below, result, .. }: Done) {
        match self.on_base.remove(tag) {
            Some(OnBase::Read { tag }) => self.ready.push_back(Done::new(tag, below, result)),
            Some(OnBase::Piece) => self.piece_done(io, below, result),
            Some(OnBase::Sync) => self.base_synced(result),
            None => self.ready.push_back(unknown(below, result)),
        }
    }
}

impl<T: DiskBackend, B> Drop for Layer<T, B> {
    fn drop(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let unfinished = self.flush.take().map(Flush::end);
        unfinished.iter().flat_map(|ended| &ended.pages).for_each(|page| self.map.is_dirty(page));
        let pages = self.map.take_dirty();
        // The data first, as at any flush. Nobody is left who could be told of a failure.
        if !pages.is_empty() && keeper.sync().is_ok() {
            for page in pages {
                let _ = keeper.write_at(self.header.slot_at(page.index.into(), page.slot()), &*page.bytes);
            }
        }
    }
}

impl<T: DiskBackend, B: DiskBackend> DiskBackend for Layer<T, B> {
    fn info(&self) -> DiskInfo {
        Self::info_over(&self.header, self.top.info(), Some(self.base.info()))
    }

    fn attach(&mut self, io: &mut Io) -> Result<()> {
        self.token = Some(io.token());
        self.base.attach(io)?;
        self.top.attach(io)
    }

    fn submit(&mut self, io: &mut Io, tag: Tag, operation: Operation) -> std::result::Result<(), Operation> {
        match operation {
            Operation::Read { at, into } => self.read(io, tag, at, into)?,
            Operation::Write { at, from, stable } => self.write(io, tag, at, from, stable)?,
            Operation::Flush => {
                self.asked.push(Asked { tag, operation });
                self.begin_flush();
            }
            Operation::Discard(range) => self.zero(tag, operation, range, false)?,
            Operation::WriteZeroes { range, stable, .. } => self.zero(tag, operation, range, stable)?,
        }
        self.go_on(io);
        Ok(())
    }

    fn commit(&mut self, io: &mut Io) {
        self.top.commit(io);
        self.base.commit(io);
    }

    fn completed(&mut self, io: &mut Io) -> Option<Done> {
        loop {
            if let Some(done) = self.ready.pop_front() {
                return Some(done);
            }
            // In turns, so that neither waits for the other; each once, since below a base may be many more.
            self.base_first = !self.base_first;
            let from_base = if self.base_first { self.base.completed(io) } else { None };
            if let Some(done) = from_base {
                self.base_done(io, done);
            } else if let Some(done) = self.top.completed(io) {
                self.top_done(io, done);
            } else if !self.base_first
                && let Some(done) = self.base.completed(io)
            {
                self.base_done(io, done);
            } else {
                let before = self.below();
                self.go_on(io);
                self.commit(io);
                if self.below() > before && self.ready.is_empty() {
                    // It may be done at once, and then nothing else would say so.
                    continue;
                }
                return self.ready.pop_front();
            }
            self.go_on(io);
            if io.spent() {
                self.commit(io);
                // More may be done below than there is time for now.
                self.is_unfinished = true;
                return self.ready.pop_front();
            }
        }
    }

    fn cancel(&mut self, io: &mut Io) {
        let active = usize::from(self.buffer.is_none());
        while self.slow.len() > active {
            let Some(slow) = self.slow.pop_back() else { break };
            self.end_slow(slow, Err(io::ErrorKind::Interrupted.into()));
        }
        self.top.cancel(io);
        self.base.cancel(io);
    }

    fn refresh(&mut self, io: &mut Io) {
        self.top.refresh(io);
    }

    fn wants(&self, wants: &mut Wants) {
        if self.is_unfinished || !self.ready.is_empty() {
            wants.again();
        }
        if let (Some(due), Some(token), None) = (self.due, self.token, &self.flush) {
            wants.deadline(token, due);
        }
        self.top.wants(wants);
        self.base.wants(wants);
    }

    fn woken(&mut self, io: &mut Io, event: &Event) {
        self.top.woken(io, event);
        self.base.woken(io, event);
    }

    fn status(&self) -> DiskStatus {
        self.top.status()
    }

    fn metrics(&self, meter: &mut Meter) {
        self.top.metrics(meter);
    }
}

#[cfg(test)]
#[path = "layer_test.rs"]
mod tests;
