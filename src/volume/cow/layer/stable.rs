//! How changes become stable: the data, then the pages of the map; and when, if nobody asks.

use std::io;
use std::time::Instant;

use super::super::flush::{Asked, Flush, Step};
use super::super::operation::{host_buffer, same};
use super::in_flight::{OnBase, OnTop};
use super::{LATEST, Layer, MANY_DIRTY};
use crate::block::{DiskBackend, Done, Operation};
use crate::event::Io;
use crate::memory::Buffer;

impl<T: DiskBackend, B: DiskBackend> Layer<T, B> {
    pub(super) fn begin_flush(&mut self) {
        if self.flush.is_none() {
            let (asked, pages, freed) = (std::mem::take(&mut self.asked), self.map.take_dirty(), self.space.freed());
            let first = if self.unsettled.is_some() { Step::Base } else { Step::Sync };
            self.flush = Some(Flush::new(first, asked, pages, self.epoch, freed));
            self.due = None;
            self.epoch = self.epoch.saturating_add(1);
        }
    }

    /// Whether so much has changed, or some of it so long ago, that it is to be stable although nobody asks.
    pub(super) fn is_to_flush_unasked(&mut self) -> bool {
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

    pub(super) fn go_on_with_flush(&mut self, io: &mut Io) {
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

    pub(super) fn end_flush(&mut self) {
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

    pub(super) fn base_synced(&mut self, result: io::Result<()>) {
        if let Some(settled) = self.unsettled.take() {
            settled.tell(result.as_ref().map_or_else(|e| Err(same(e)), |()| Ok(())));
            self.unsettled = result.is_err().then_some(settled);
        }
        if self.flush.as_mut().is_some_and(|flush| flush.base_synced(result)) {
            self.end_flush();
        }
    }
}
