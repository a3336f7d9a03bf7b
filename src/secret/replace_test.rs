use super::*;
use crate::secret::{HostKey, Secret, SecretStore};

/// Ends at a step as a process does that is killed: nothing is cleaned up.
struct Killed<S> {
    steps: S,
    left: usize,
}

impl<S> Killed<S> {
    fn step(&mut self, step: impl FnOnce(&mut S) -> io::Result<()>) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::Interrupted)?;
        step(&mut self.steps)
    }
}

impl<S: Steps> Steps for Killed<S> {
    fn begin(&mut self) -> io::Result<()> {
        self.step(S::begin)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            // In the midst of it.
            self.steps.write(&bytes[..bytes.len() / 2])?;
        }
        self.step(|steps| steps.write(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step(S::sync)
    }

    fn take_place(&mut self) -> io::Result<()> {
        self.step(S::take_place)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step(S::sync_folder)
    }

    fn give_up(&mut self) {}
}

const STEPS: usize = 5;

#[test]
fn a_process_that_is_killed_at_any_step_leaves_the_old_store_or_the_new_one_and_the_next_change_works() {
    let host = HostKey::generate().unwrap();
    let set = |store: &SecretStore, value: &[u8]| store.set(host.sealing_key(), &Secret::new("one", value).unwrap());
    for left in 0..=STEPS {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["store", "other"].map(|name| folder.path().join(name));
        set(&SecretStore::create(&path, "app").unwrap(), b"old").unwrap();
        fs::copy(&path, &other).unwrap();
        set(&SecretStore::open(&other, "app").unwrap(), b"new").unwrap();
        let new = fs::read(&other).unwrap();
        fs::remove_file(&other).unwrap();

        let like = fs::metadata(&path).unwrap();
        let mut killed = Killed { steps: InPlace::new(&path, &like).unwrap(), left };
        let done = replace(&mut killed, &new).and_then(|()| killed.sync_folder());
        assert_eq!(done.is_ok(), left == STEPS);
        drop(killed);

        let store = SecretStore::open(&path, "app").unwrap();
        let is_placed = left >= 4;
        let value: &[u8] = if is_placed { b"new" } else { b"old" };
        assert_eq!(store.get(&host, "one").unwrap().expose(), value, "{left} steps");
        assert_eq!(set(&store, b"next").unwrap(), 2 + u64::from(is_placed));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{left} steps: nothing is left over");
    }
}

/// A disk that keeps what was brought to storage, and forgets or keeps the rest as it likes.
#[derive(Default)]
struct Disk {
    written: Vec<u8>,
    is_synced: bool,
    /// What is in the place, if the new file is: whether all of it was on storage by then.
    placed: Option<bool>,
    is_place_synced: bool,
}

impl Steps for Disk {
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written.extend(bytes);
        self.is_synced = false;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.is_synced = true;
        Ok(())
    }

    fn take_place(&mut self) -> io::Result<()> {
        self.placed = Some(self.is_synced);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.is_place_synced = self.placed.is_some();
        Ok(())
    }

    fn give_up(&mut self) {}
}

impl Disk {
    /// All that may be in the place when the power is back.
    fn found(&self) -> Vec<&[u8]> {
        let mut found: Vec<&[u8]> = Vec::new();
        if !self.is_place_synced {
            found.push(b"old");
        }
        match self.placed {
            Some(true) => found.push(&self.written),
            Some(false) => found.extend([&self.written[..0], &self.written[..1], &self.written]),
            None => {}
        }
        found
    }
}

#[test]
fn after_a_power_failure_at_any_step_the_file_is_the_old_one_or_the_new_one() {
    for left in 0..=STEPS {
        let mut disk = Killed { steps: Disk::default(), left };
        let done = replace(&mut disk, b"new").and_then(|()| disk.sync_folder());
        let found = disk.steps.found();
        assert!(!found.is_empty() && found.iter().all(|found| matches!(*found, b"old" | b"new")), "{left}: {found:?}");
        assert_eq!(done.is_ok(), found == [b"new"], "{left}: what was done is on storage");
    }
}

#[test]
fn the_new_file_has_the_mode_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let like = fs::metadata(&path).unwrap();
    replace(&mut InPlace::new(&path, &like).unwrap(), b"new").unwrap();
    let about = fs::metadata(&path).unwrap();
    assert_eq!((about.mode() & 0o777, fs::read(&path).unwrap()), (0o640, b"new".to_vec()));
}
