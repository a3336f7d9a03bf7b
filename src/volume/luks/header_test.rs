//! A crash at any moment of a change: what was written since the last sync is there, or not, or in part.

use std::cell::RefCell;
use std::io;

use super::*;

/// A file in memory that notes what is written, and when that is stable.
#[derive(Clone, Default)]
struct Noted {
    bytes: RefCell<Vec<u8>>,
    log: RefCell<Vec<Entry>>,
    /// Writes that succeed before one fails.
    room: RefCell<Option<usize>>,
}

#[derive(Clone)]
enum Entry {
    Write(u64, Vec<u8>),
    Sync,
}

impl Noted {
    fn apply(&self, at: u64, bytes: &[u8]) {
        self.bytes.borrow_mut()[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

impl Storage for Noted {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let bytes = self.bytes.borrow();
        into.copy_from_slice(
            bytes.get(at as usize..).and_then(|rest| rest.get(..into.len())).ok_or(io::ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Some(room) = &mut *self.room.borrow_mut() {
            *room = room.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        self.apply(at, bytes);
        self.log.borrow_mut().push(Entry::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.log.borrow_mut().push(Entry::Sync);
        Ok(())
    }
}

const KEY: [u8; 64] = [0x5a; 64];

/// A volume of some key slots, each opened by its number as a text.
fn volume(slots: u8) -> (Noted, Header) {
    let file = Noted::default();
    file.bytes.borrow_mut().resize(1 << 21, 0);
    let mut header = Header::new("", 4096, false, &KEY).unwrap();
    for slot in 0..slots {
        header.add(&file, &KEY, &[slot; 32], Cost::Random).unwrap();
    }
    file.log.borrow_mut().clear();
    (file, header)
}

fn opens(file: &Noted, secret: u8) -> bool {
    let header = Header::read(file).expect("one copy is whole");
    match header.unlock(file, &[secret; 32], UnlockLimits::default()) {
        Ok((_, key)) => *key == KEY,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::VolumeKey, "{}", e.chain());
            false
        }
    }
}

/// Tries each state in which a crash may leave the file.
fn each_crash(before: &Noted, after: &Noted, check: impl Fn(&Noted)) -> usize {
    let log = after.log.borrow();
    let mut tried = 0;
    let stable = before.clone();
    let mut pending: Vec<(u64, Vec<u8>)> = Vec::new();
    for entry in log.iter() {
        match entry {
            Entry::Sync => pending.drain(..).for_each(|(at, bytes)| stable.apply(at, &bytes)),
            Entry::Write(at, bytes) => {
                pending.push((*at, bytes.clone()));
                // Of what is not stable, the last write came whole, in part (either end), or not at all.
                for part in [0..0, 0..bytes.len(), 0..512, bytes.len() - 512..bytes.len(), 512..bytes.len() / 2] {
                    let crashed = stable.clone();
                    pending[..pending.len() - 1].iter().for_each(|(at, bytes)| crashed.apply(*at, bytes));
                    crashed.apply(at + part.start as u64, &bytes[part]);
                    check(&crashed);
                    tried += 1;
                }
            }
        }
    }
    assert!(pending.is_empty(), "what was written last is stable as well");
    tried
}

#[test]
fn a_crash_while_a_key_is_added_leaves_the_old_keys() {
    let (before, mut header) = volume(1);
    let after = before.clone();
    header.add(&after, &KEY, &[9; 32], Cost::Random).unwrap();
    assert!(opens(&after, 9) && opens(&after, 0));
    assert!(each_crash(&before, &after, |crashed| assert!(opens(crashed, 0))) >= 15);
}

#[test]
fn a_crash_while_a_key_is_removed_leaves_the_others() {
    let (before, mut header) = volume(2);
    let after = before.clone();
    header.remove(&after, 0).unwrap();
    assert!(!opens(&after, 0) && opens(&after, 1));
    each_crash(&before, &after, |crashed| assert!(opens(crashed, 1)));
}

#[test]
fn a_crash_while_the_only_key_is_changed_leaves_the_old_one_or_the_new_one() {
    let (before, mut header) = volume(1);
    let after = before.clone();
    header.add(&after, &KEY, &[9; 32], Cost::Random).unwrap();
    header.remove(&after, 0).unwrap();
    assert!(!opens(&after, 0) && opens(&after, 9));
    each_crash(&before, &after, |crashed| assert!(opens(crashed, 0) || opens(crashed, 9)));
}

#[test]
fn a_crash_while_a_damaged_copy_is_mended_leaves_the_other_one() {
    for damaged in [0, SIZES[0]] {
        let (before, _) = volume(1);
        before.apply(damaged + 4096, b"nonsense");
        let after = before.clone();
        Header::read(&after).unwrap().write_both(&after).unwrap();
        each_crash(&before, &after, |crashed| assert!(opens(crashed, 0)));
    }
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_change_leaves_the_old_keys() {
    for room in 0..3 {
        let (file, mut header) = volume(1);
        *file.room.borrow_mut() = Some(room);
        let error = header.add(&file, &KEY, &[9; 32], Cost::Random).unwrap_err();
        assert_eq!(error.to_string(), "its header cannot be written");
        assert!(opens(&file, 0), "after {room} writes");
        // The next try works.
        *file.room.borrow_mut() = None;
        let mut header = Header::read(&file).unwrap();
        header.add(&file, &KEY, &[9; 32], Cost::Random).unwrap();
        assert!(opens(&file, 0) && opens(&file, 9));
    }
}

#[test]
fn areas_of_key_slots_are_used_again() {
    let (file, mut header) = volume(3);
    let (offset, ..) = header
        .metadata
        .areas()
        .unwrap()
        .into_iter()
        .find(|(slot, ..)| *slot == 1)
        .map(|(_, at, len)| (at, len))
        .unwrap();
    header.remove(&file, 1).unwrap();
    assert_eq!(header.add(&file, &KEY, &[7; 32], Cost::Random).unwrap(), 1);
    assert!(header.metadata.areas().unwrap().iter().any(|(slot, at, _)| (*slot, *at) == (1, offset)));
}

#[test]
fn an_identifier_is_one_of_rfc_9562() {
    assert_eq!(random_uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(random_uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
}

#[test]
fn a_key_slot_of_a_kind_that_is_not_known_does_not_stand_in_for_the_last_one() {
    let (file, mut header) = volume(2);
    let text = String::from_utf8(header.metadata.text()).unwrap();
    // The one that goes by its number 1: another program's.
    let mut root: serde_json::Value = serde_json::from_str(&text).unwrap();
    root["keyslots"]["1"]["type"] = "token-only".into();
    header.metadata = Metadata::parse(root.to_string().as_bytes()).unwrap();
    header.write_both(&file).unwrap();
    let mut header = Header::read(&file).unwrap();
    let said = header.remove(&file, 0).unwrap_err().to_string();
    assert!(said.contains("key slot 0 is the last one that can be used"), "{said}");
    assert!(opens(&file, 0));
    header.remove(&file, 1).unwrap();
    assert!(header.remove(&file, 0).is_err() && opens(&file, 0));
}

#[test]
fn the_forks_of_a_base_are_noted_until_there_are_too_many() {
    let (file, mut header) = volume(1);
    let of = |number: u8| [number; 16];
    header.make_base(&file, of(9), of(0)).unwrap();
    for number in 1..MOST_FORKS as u8 {
        header.make_base(&file, of(1), of(number)).unwrap();
    }
    let mut header = Header::read(&file).unwrap();
    assert_eq!(header.base_identity(), Some(of(9)), "the first one counts");
    assert_eq!(header.forks(), Some((0..MOST_FORKS as u8).map(of).collect()));
    header.begin_commit(&file, of(3)).unwrap();
    assert_eq!((header.commit(), header.check_no_commit().is_err()), (Some(of(3)), true));
    header.make_base(&file, of(1), of(200)).unwrap();
    header.make_base(&file, of(1), of(201)).unwrap();
    let header = Header::read(&file).unwrap();
    assert_eq!((header.base_identity(), header.forks()), (Some(of(9)), None), "nobody knows how many");
}
