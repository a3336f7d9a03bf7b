//! Packets that several threads put in, while another takes them and falls asleep: in each order of their steps.

use std::sync::Arc;

use super::*;
use crate::sys::EventFd;
use crate::sys::model::check;
use crate::sys::sync::thread;

#[test]
fn each_packet_that_was_rung_for_is_taken_and_its_storage_comes_back() {
    check(|| {
        let told = Arc::new(EventFd::new().unwrap());
        let wake = {
            let told = Arc::clone(&told);
            move || told.signal()
        };
        let outbox = Arc::new(Outbox::new(4, wake));
        let senders = [0, 1].map(|_| {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || {
                for _ in 0..2 {
                    outbox.put(outbox.storage().expect("as many as may be on their way"));
                    outbox.ring();
                }
            })
        });
        let (mut packets, mut spent, mut taken) = (VecDeque::new(), Vec::new(), 0);
        while taken < 4 {
            told.wait();
            outbox.take(&mut packets, &mut spent);
            taken += packets.len();
            spent.extend(packets.drain(..));
        }
        outbox.take(&mut packets, &mut spent);
        assert!(packets.is_empty());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let storage: Vec<_> = std::iter::from_fn(|| outbox.storage()).collect();
        assert_eq!(storage.len(), 4);
    });
}
