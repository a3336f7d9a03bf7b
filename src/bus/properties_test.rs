//! Devices in any ranges, against a list of them.

use std::sync::Mutex;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Writes down what it is asked for.
struct Recorder {
    number: usize,
    seen: Arc<Mutex<Vec<(usize, u64, usize)>>>,
}

impl BusDevice for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.seen.lock().unwrap().push((self.number, offset, data.len()));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.seen.lock().unwrap().push((self.number, offset, data.len()));
    }
}

/// One of few, near the beginning or the end of all addresses, so that ranges meet.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![0..64u64, (0..24u64).prop_map(|back| u64::MAX - back)]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..20u64, 1 => any::<u64>()]
}

proptest! {
    #[test]
    fn an_access_reaches_the_device_whose_range_has_all_of_it(
        ranges in vec((address(), len()), 0..12),
        accesses in vec((address(), 0..12usize, any::<bool>()), 1..20),
    ) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut bus = Bus::new();
        let mut there: Vec<(usize, u128, u128)> = Vec::new();
        for (number, (start, len)) in ranges.into_iter().enumerate() {
            let (begin, end) = (u128::from(start), u128::from(start) + u128::from(len));
            let overlaps = there.iter().any(|(_, other, stop)| begin < *stop && *other < end);
            let is_fine = len > 0 && end <= 1 << 64 && !overlaps;
            let device = Arc::new(Recorder { number, seen: Arc::clone(&seen) });
            prop_assert_eq!(bus.insert(start, len, device).is_ok(), is_fine);
            if is_fine {
                there.push((number, begin, end));
            }
        }
        for (address, len, writes) in accesses {
            let (begin, end) = (u128::from(address), u128::from(address) + len as u128);
            let owner = there.iter().find(|(_, start, stop)| len > 0 && *start <= begin && end <= *stop);
            let mut data = vec![0xee; len];
            let reached = if writes { bus.write(address, &data) } else { bus.read(address, &mut data) };
            prop_assert_eq!(reached, owner.is_some());
            prop_assert!(writes || data.iter().all(|byte| *byte == 0));
            let expected: Vec<_> = owner.map(|(number, start, _)| (*number, (begin - start) as u64, len)).into_iter().collect();
            prop_assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
        }
    }
}
