//! Gives the place of freed clusters back.

use super::super::entry::CLUSTER;
use super::super::space::ranges;
use super::Layer;
use super::in_flight::OnTop;
use crate::block::{DiskBackend, Operation};
use crate::event::Io;

impl<T: DiskBackend, B: DiskBackend> Layer<T, B> {
    /// Gives the place of freed clusters back to the host, one range after the other; then they are free.
    pub(super) fn go_on_with_punching(&mut self, io: &mut Io) {
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

    pub(super) fn let_go(&mut self, clusters: Vec<u32>) {
        let info = self.top.info();
        let at_once = usize::try_from(info.max_range / CLUSTER).unwrap_or(usize::MAX);
        if !info.discard || at_once == 0 {
            return self.space.put_back(clusters);
        }
        self.punching.extend(ranges(clusters, self.header.data_at(), at_once));
    }
}
