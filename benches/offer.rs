//! A driver that costs next to nothing: its descriptors and the entries of its available ring are written once, and stay as they
//! are. To offer chains again it only moves its index.

use vmcell::testing::{Buffer, DriverQueue};
use vmcell::virtio::QueueConfig;
use vmcell::{GuestAddress, GuestMemory};

/// Descriptors of each queue.
pub const SIZE: u16 = 256;

/// A queue that offers the same chains again and again.
pub struct Offers {
    driver: DriverQueue,
    chains: u16,
}

impl Offers {
    /// Lays `chains` out, each of the buffers that `buffers` gives for its number. None is offered yet.
    pub fn direct(memory: &GuestMemory, base: u64, chains: u16, buffers: impl Fn(u64) -> Vec<Buffer>) -> Self {
        Self::lay_out(memory, base, chains, |driver, number| driver.offer(&buffers(number)))
    }

    /// The same, with an indirect table for each chain, from `tables` on.
    pub fn indirect(
        memory: &GuestMemory,
        base: u64,
        tables: u64,
        chains: u16,
        buffers: impl Fn(u64) -> Vec<Buffer>,
    ) -> Self {
        let table = |number| tables + number * 0x100;
        Self::lay_out(memory, base, chains, |driver, number| driver.offer_indirect(table(number), &buffers(number)))
    }

    fn lay_out(
        memory: &GuestMemory,
        base: u64,
        chains: u16,
        mut offer: impl FnMut(&mut DriverQueue, u64) -> u16,
    ) -> Self {
        assert!(SIZE.is_multiple_of(chains), "the entries of the ring go round");
        let mut driver = DriverQueue::new(memory, GuestAddress(base), SIZE);
        let heads: Vec<u16> = (0..chains).map(|number| offer(&mut driver, number.into())).collect();
        heads.iter().cycle().take((SIZE - chains).into()).for_each(|head| driver.offer_head(*head));
        driver.set_avail_index(0);
        Self { driver, chains }
    }

    /// Offers all chains, which must have been completed.
    pub fn again(&mut self) {
        assert!(self.all_done(), "something was not completed");
        self.driver.set_avail_index(self.driver.avail_index().wrapping_add(self.chains));
    }

    /// Whether all chains that were offered have been completed.
    pub fn all_done(&self) -> bool {
        self.driver.used_index() == self.driver.avail_index()
    }

    /// How many chains there are.
    pub fn chains(&self) -> u16 {
        self.chains
    }

    pub fn config(&self) -> QueueConfig {
        self.driver.config()
    }

    pub fn driver(&self) -> &DriverQueue {
        &self.driver
    }
}
