//! All connections of a guest, by their ports, by their events, and in the order in which they may send.

use std::collections::{HashMap, VecDeque};

use super::connection::{Connection, Ports};

/// Ports of the host from which connections to the guest come, as ephemeral ports are those of programs that do not choose one.
const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_ports: HashMap<Ports, u32>,
    /// Those that may have something to send.
    ready: VecDeque<u32>,
    next_port: u32,
    most: usize,
    /// How many connections there have been, which tells those apart that had the same slot.
    count: u32,
}

#[derive(Default)]
struct Slot {
    /// Which one of them is here.
    generation: u32,
    connection: Option<Connection>,
    is_ready: bool,
}

impl Table {
    pub(super) fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            next_port: FIRST_PORT,
            most,
            count: 0,
        }
    }

    /// Takes out all connections at once. Events of theirs that come later are of no connection any more.
    pub(super) fn take_all(&mut self) -> Self {
        let empty = Self { next_port: self.next_port, most: self.most, count: self.count, ..Self::new(0) };
        std::mem::replace(self, empty)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.most
    }

    /// Adds a connection that is made of its index and the key of its events; `None` if there is no room.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Option<Connection>) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let index = self.free.pop().or_else(|| {
            let index = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot::default());
            Some(index)
        })?;
        self.count = self.count.wrapping_add(1);
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation = self.count;
        slot.connection = make(u64::from(slot.generation) << 32 | u64::from(index));
        if slot.connection.is_none() {
            self.free.push(index);
            return None;
        }
        Some(index)
    }

    pub(super) fn get(&mut self, index: u32) -> Option<&mut Connection> {
        self.slots.get_mut(index as usize)?.connection.as_mut()
    }

    /// The connection that an event is of, if it is still there.
    pub(super) fn of_event(&self, key: u64) -> Option<u32> {
        let index = u32::try_from(key & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get(index as usize)?;
        let is_same = slot.connection.is_some() && u64::from(slot.generation) == key >> 32;
        is_same.then_some(index)
    }

    pub(super) fn find(&self, ports: Ports) -> Option<u32> {
        self.by_ports.get(&ports).copied()
    }

    /// From now on it is found by its ports.
    pub(super) fn name(&mut self, ports: Ports, index: u32) {
        self.by_ports.insert(ports, index);
    }

    /// From now on it is not found any more.
    pub(super) fn unname(&mut self, index: u32) {
        let Some(ports) = self.get(index).map(|connection| connection.ports) else { return };
        if self.find(ports) == Some(index) {
            self.by_ports.remove(&ports);
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Connection> {
        self.unname(index);
        let slot = self.slots.get_mut(index as usize)?;
        let connection = slot.connection.take()?;
        self.free.push(index);
        Some(connection)
    }

    /// Has the ports of the host begin elsewhere: a guest that was restored may not have let go of connections from those that were used before.
    pub(super) fn begin_at(&mut self, any: u32) {
        // There is a power of two of them.
        self.next_port = FIRST_PORT | (any & (FIRST_PORT ^ LAST_PORT));
    }

    /// A port of the host from which no connection leads to `guest`.
    pub(super) fn free_port(&mut self, guest: u32) -> u32 {
        // There are more of them than connections.
        loop {
            let host = self.next_port;
            self.next_port = if host >= LAST_PORT { FIRST_PORT } else { host.saturating_add(1) };
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    /// It may have something to send.
    pub(super) fn queue(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize)
            && !std::mem::replace(&mut slot.is_ready, true)
        {
            self.ready.push_back(index);
        }
    }

    /// The one whose turn it is to send.
    pub(super) fn first(&self) -> Option<u32> {
        self.ready.front().copied()
    }

    /// It has had its turn, and waits behind the others if it `has_more`.
    pub(super) fn rotate(&mut self, has_more: bool) {
        let Some(index) = self.ready.pop_front() else { return };
        if has_more {
            self.ready.push_back(index);
        } else if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.is_ready = false;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| Some((index, slot.connection.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_restored_guest_begin_anywhere_among_those_of_the_host_and_come_round() {
        let mut table = Table::new(10);
        for (any, first, next) in [
            (0, FIRST_PORT, FIRST_PORT + 1),
            (5, FIRST_PORT + 5, FIRST_PORT + 6),
            (FIRST_PORT, FIRST_PORT, FIRST_PORT + 1),
            (u32::MAX, LAST_PORT, FIRST_PORT),
        ] {
            table.begin_at(any);
            assert_eq!([table.free_port(1), table.free_port(1)], [first, next], "{any:#x}");
        }
    }
}
