//! Tags, which name operations in flight, and the slab in which their owner keeps what belongs to them.

/// Names an operation in flight to whoever submitted it. A [`Slab`] makes tags. Two operations that are in flight at the same
/// time never have the same tag, nor do two that take the same place in a slab one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    slot: u32,
    generation: u32,
}

impl Tag {
    /// Returns the tag as a number, for other languages.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// Makes a tag of the number that [`to_bits`](Self::to_bits) returned. Any number is accepted, but nothing is found under
    /// one that no slab has given.
    pub fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
        Self { slot: u32::from_le_bytes([a, b, c, d]), generation: u32::from_le_bytes([e, f, g, h]) }
    }
}

/// Keeps a value for each operation in flight and finds it by its tag. A tag carries a generation, so after a value was taken
/// out, its tag finds nothing, even if another value has taken its place.
///
/// ```
/// use vmcell::block::Slab;
///
/// let mut in_flight = Slab::new(2);
/// let tag = in_flight.insert("read").unwrap();
/// in_flight.insert("write").unwrap();
/// assert!(in_flight.insert("flush").is_err(), "it is full");
/// assert_eq!(in_flight.remove(tag), Some("read"));
/// assert_eq!(in_flight.remove(tag), None);
/// ```
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// Makes a slab for at most `capacity` values at once.
    pub fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), capacity }
    }

    /// Keeps a value and returns its tag.
    ///
    /// # Errors
    /// The value, if the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Tag, T> {
        if let Some(slot) = self.free.pop() {
            return Ok(self.fill(slot, value));
        }
        match u32::try_from(self.slots.len()) {
            Ok(slot) if self.slots.len() < self.capacity => {
                self.slots.push(Slot { generation: 0, value: None });
                Ok(self.fill(slot, value))
            }
            _ => Err(value),
        }
    }

    fn fill(&mut self, slot: u32, value: T) -> Tag {
        let mut tag = Tag { slot, generation: 0 };
        if let Some(place) = self.slot_mut(slot) {
            place.value = Some(value);
            tag.generation = place.generation;
        }
        tag
    }

    /// Takes a value out; `None` if there is none under this tag.
    pub fn remove(&mut self, tag: Tag) -> Option<T> {
        let place = self.slot_mut(tag.slot).filter(|place| place.generation == tag.generation)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(tag.slot);
        Some(value)
    }

    /// Borrows a value; `None` if there is none under this tag.
    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut T> {
        let place = self.slot_mut(tag.slot).filter(|place| place.generation == tag.generation)?;
        place.value.as_mut()
    }

    /// Looks at all values.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|place| place.value.as_mut())
    }

    /// Drops all values. Their tags find nothing any more.
    pub fn clear(&mut self) {
        for (slot, place) in (0u32..).zip(&mut self.slots) {
            if place.value.take().is_some() {
                place.generation = place.generation.wrapping_add(1);
                self.free.push(slot);
            }
        }
    }

    /// Returns how many values it keeps.
    pub fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Whether it keeps no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has no room for another value.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn a_tag_of_a_past_life_finds_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.insert(1).unwrap();
        assert_eq!(slab.insert(2), Err(2));
        assert_eq!(slab.remove(first), Some(1));
        let second = slab.insert(3).unwrap();
        assert_ne!(first, second);
        assert_eq!((slab.remove(first), slab.get_mut(first)), (None, None));
        assert_eq!(slab.get_mut(second), Some(&mut 3));
        assert_eq!(Tag::from_bits(second.to_bits()), second);
        assert_eq!(slab.remove(Tag::from_bits(u64::MAX)), None);
        assert_eq!(slab.len(), 1);
    }

    proptest! {
        #[test]
        fn each_value_is_found_by_its_own_tag_alone_and_until_it_is_taken(
            capacity in 0..6usize,
            steps in vec((0..8u8, any::<Index>()), 0..80),
        ) {
            let mut slab = Slab::new(capacity);
            // All tags that were ever given, with their values as long as those are there.
            let mut given: Vec<(Tag, Option<usize>)> = Vec::new();
            for (number, (step, which)) in steps.into_iter().enumerate() {
                let kept = given.iter().filter(|(_, value)| value.is_some()).count();
                match step {
                    0..=3 => match slab.insert(number) {
                        Ok(tag) => {
                            prop_assert!(kept < capacity && given.iter().all(|(other, _)| *other != tag));
                            prop_assert_eq!(Tag::from_bits(tag.to_bits()), tag);
                            given.push((tag, Some(number)));
                        }
                        Err(value) => prop_assert!(kept == capacity && value == number),
                    },
                    4..=6 if !given.is_empty() => {
                        let (tag, value) = which.get(&given);
                        prop_assert_eq!(slab.remove(*tag), *value);
                        let tag = *tag;
                        given.iter_mut().filter(|(other, _)| *other == tag).for_each(|(_, value)| *value = None);
                    }
                    7 if which.index(4) == 0 => {
                        slab.clear();
                        given.iter_mut().for_each(|(_, value)| *value = None);
                    }
                    _ => {}
                }
                for (tag, value) in &mut given {
                    prop_assert_eq!(slab.get_mut(*tag), value.as_mut());
                }
                let kept = given.iter().filter(|(_, value)| value.is_some()).count();
                prop_assert_eq!((slab.len(), slab.is_empty(), slab.is_full()), (kept, kept == 0, kept == capacity));
            }
        }
    }
}
