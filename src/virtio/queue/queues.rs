//! All queues of one device.

use super::running::Queue;

/// The queues of a device. Its transport lends them to it for one call. Before activation and after a reset, there are none.
#[derive(Default)]
pub struct Queues {
    queues: Vec<Option<Queue>>,
}

impl Queues {
    /// Makes a set of queues, by index, with `None` for each that the driver does not use.
    pub fn new(queues: Vec<Option<Queue>>) -> Self {
        Self { queues }
    }

    /// Returns a queue by its index; `None` if the driver does not use it.
    pub fn get(&mut self, index: u16) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }

    /// Those that the driver uses.
    pub(in crate::virtio) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut().flatten()
    }

    /// All, by index.
    pub(in crate::virtio) fn by_index(&self) -> &[Option<Queue>] {
        &self.queues
    }

    /// While halted, no queue gives a chain.
    pub(in crate::virtio) fn set_halted(&mut self, halted: bool) {
        self.iter_mut().for_each(|queue| queue.set_halted(halted));
    }

    /// Whether any chain was taken, and neither completed nor put back.
    pub(in crate::virtio) fn is_busy(&self) -> bool {
        self.queues.iter().flatten().any(|queue| queue.in_flight() > 0)
    }
}
