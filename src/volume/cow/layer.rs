//! The layer as a disk backend: reads come from where the map says, writes go into clusters of the layer's own file.

mod backend;
mod in_flight;
mod pieces;
mod punching;
mod requests;
mod stable;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use in_flight::{OnBase, OnTop, Slow};

use super::blocks::Blocks;
use super::entry::BLOCK;
use super::flush::{Asked, Flush};
use super::growth::{Grown, Growth};
use super::header::Header;
use super::map::Map;
use super::operation::{host_buffer, moved, unknown};
use super::page::PAGE;
use super::settled::Settled;
use super::space::Space;
use crate::block::{ByteRange, DiskBackend, DiskInfo, Done, Operation, Slab};
use crate::event::{Io, Token};
use crate::memory::HostBuffer;

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
    growth: Growth,
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
            growth: Growth::default(),
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

    /// By which it is told that its file has grown.
    pub(crate) fn growth(&self) -> Growth {
        self.growth.clone()
    }

    /// As [`growth`](Self::growth) of what it was before.
    pub(super) fn told_by(mut self, growth: Growth) -> Self {
        self.growth = growth;
        self
    }

    /// Takes what it was told of its file.
    fn grow(&mut self, io: &mut Io) {
        let Some(Grown { capacity, place }) = self.growth.take() else { return };
        (self.header.capacity, self.header.place) = (capacity, place);
        self.map.grow(self.header.pages());
        self.space.grow(self.header.room(), self.header.taken());
        io.info_changed();
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

    /// An operation has ended, but for being made stable if that is wanted.
    fn end(&mut self, Asked { tag, operation }: Asked, stable: bool, result: io::Result<()>) {
        if stable && result.is_ok() {
            self.asked.push(Asked { tag, operation });
            self.begin_flush();
        } else {
            self.ready.push_back(Done::new(tag, operation, result));
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

#[cfg(test)]
#[path = "layer_test.rs"]
mod tests;
