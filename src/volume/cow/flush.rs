//! A flush: the data are made stable, then the pages of the map that changed are written, then those are made stable. So the file's map
//! never names what is not there, and a crash leaves each page as it was before or as it is after. The base comes first as long as what was
//! written to it, before this layer was put on top of it, is not stable.

use std::io;

use super::map::Image;
use crate::block::{Operation, Tag};

/// Whoever waits for a flush: a flush itself, or a write that is to be stable.
pub(super) struct Asked {
    pub(super) tag: Tag,
    pub(super) operation: Operation,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The base is to be made stable.
    Base,
    /// The data, or the pages, are to be made stable.
    Sync,
    /// That was asked for.
    Syncing,
    /// Pages are written.
    Pages,
}

pub(super) struct Flush {
    pub(super) asked: Vec<Asked>,
    /// When clusters were freed whose place in the file this flush makes free.
    pub(super) epoch: u64,
    pub(super) freed: Vec<u32>,
    step: Step,
    /// Pages that are to be written, and those that were.
    left: Vec<Image>,
    written: Vec<Image>,
    in_flight: usize,
    failed: Option<io::Error>,
    /// The pages are written, so that the next sync is the last.
    is_last: bool,
}

/// How a flush ended: its pages, and why it failed.
pub(super) struct Ended {
    pub(super) asked: Vec<Asked>,
    pub(super) epoch: u64,
    pub(super) freed: Vec<u32>,
    pub(super) pages: Vec<Image>,
    pub(super) failed: Option<io::Error>,
}

impl Flush {
    /// `first` is where it begins: with the base, or with the data.
    pub(super) fn new(first: Step, asked: Vec<Asked>, pages: Vec<Image>, epoch: u64, freed: Vec<u32>) -> Self {
        let is_last = pages.is_empty();
        let (written, failed) = (Vec::new(), None);
        Self { asked, epoch, freed, step: first, left: pages, written, in_flight: 0, failed, is_last }
    }

    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// A sync was asked for.
    pub(super) fn syncs(&mut self) {
        self.step = Step::Syncing;
    }

    /// The next page to be written; it comes back by [`wrote`](Self::wrote) or [`put_back`](Self::put_back).
    pub(super) fn next_page(&mut self) -> Option<Image> {
        if self.step != Step::Pages || self.failed.is_some() {
            return None;
        }
        let page = self.left.pop()?;
        self.in_flight = self.in_flight.saturating_add(1);
        Some(page)
    }

    /// There is no room for a page now.
    pub(super) fn put_back(&mut self, page: Image) {
        self.left.push(page);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A page was written, or not. Says whether the flush is over.
    pub(super) fn wrote(&mut self, page: Image, result: io::Result<()>) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.written.push(page);
        self.note(result);
        if self.in_flight > 0 || (self.failed.is_none() && !self.left.is_empty()) {
            return false;
        }
        (self.step, self.is_last) = (Step::Sync, true);
        self.failed.is_some()
    }

    /// The base is stable, or not. Says whether the flush is over.
    pub(super) fn base_synced(&mut self, result: io::Result<()>) -> bool {
        self.note(result);
        self.step = Step::Sync;
        self.failed.is_some()
    }

    /// A sync has ended. Says whether the flush is over.
    pub(super) fn synced(&mut self, result: io::Result<()>) -> bool {
        self.note(result);
        if self.is_last || self.failed.is_some() {
            return true;
        }
        self.step = Step::Pages;
        false
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(e) = result {
            self.failed.get_or_insert(e);
        }
    }

    pub(super) fn end(self) -> Ended {
        let pages = self.written.into_iter().chain(self.left).collect();
        Ended { asked: self.asked, epoch: self.epoch, freed: self.freed, pages, failed: self.failed }
    }
}
